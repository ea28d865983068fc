"""Figures of agreement.json as PNG files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from uar.storage.files import whole_file

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"  # of Okabe and Ito's palette, told apart by colour-blind people
BARS = 30  # more numbers of positives than this share bars
POINTS = 40  # more ranks than this share points


def write_figures(folder: Path, agreement: dict[str, Any]) -> list[Path]:
    """Write those figures whose data `agreement` holds: `histogram` -> positives.png, `confusion` -> confusion.png (more
    than one grade on a side), `by_rank` -> by_rank.png, `calibration` (see `calibration`), where it was measured ->
    reliability.png. Return their paths."""
    figures: dict[str, tuple[Any, Callable[[Any], Figure]]] = {
        "positives": (agreement.get("histogram"), _positives),
        "confusion": (agreement.get("confusion"), _confusion),
        "by_rank": (agreement.get("by_rank"), _by_rank),
        "reliability": (agreement.get("calibration"), _reliability),
    }
    written = []
    for name, (data, draw) in figures.items():
        if not data or (name == "confusion" and len(data["rows"]) < 2) or (name == "reliability" and "after" not in data):
            continue
        path = folder / f"{name}.png"
        figure = draw(data)
        with whole_file(path) as beside:
            figure.savefig(beside, format="png", dpi=150)
        written.append(path)
    return written


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#E5E5E5")


def _positives(histogram: dict[str, int]) -> Figure:
    numbers = np.array([int(n) for n in histogram])
    queries = np.array(list(histogram.values()))
    width = -(-int(numbers.max() + 1) // BARS)
    heights = np.bincount(numbers // width, queries)
    figure = _figure(6, 3.6)
    axes = figure.subplots()
    axes.bar(np.arange(len(heights)) * width + (width - 1) / 2, heights, width=0.85 * width, color=BLUE)
    mean = float((numbers * queries).sum() / queries.sum())
    axes.axvline(mean, color=ORANGE, linestyle="--", label=f"mean {mean:.1f}")
    bins = f" (bins of {width})" if width > 1 else ""
    axes.set(xlabel=f"Positives of the annotator in a query{bins}", ylabel="Queries", xlim=(-0.6, len(heights) * width - 0.4))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    _plain(axes)
    return figure


def _confusion(confusion: dict[str, Any]) -> Figure:
    counts = np.array(confusion["counts"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(2.2 + 0.9 * counts.shape[1], 1.6 + 0.7 * counts.shape[0])
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        text = f"{count:,}\n{share:.0%}"
        axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.65 else "black", fontsize=9)
    axes.set_xticks(range(len(confusion["columns"])), [str(grade) for grade in confusion["columns"]])
    axes.set_yticks(range(len(confusion["rows"])), [str(grade) for grade in confusion["rows"]])
    axes.set(xlabel="Grade of the annotator", ylabel="Grade of people")
    bar = figure.colorbar(image, format=PercentFormatter(1))
    bar.set_label("Share of the passages of a row")
    return figure


def _by_rank(rows: list[dict[str, Any]]) -> Figure:
    ranks = np.array([row["rank"] for row in rows])
    width = -(-int(ranks.max()) // POINTS)
    block = (ranks - 1) // width
    passages = np.bincount(block, [row["passages"] for row in rows])
    positives = np.bincount(block, [row["passages"] * row["human_positives"] for row in rows])
    there = np.flatnonzero(passages)
    centres = there * width + (width + 1) / 2
    figure = _figure(6, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    shares = positives[there] / passages[there]
    upper.plot(centres, shares, color=BLUE, marker="o", markersize=4, linewidth=1.2, clip_on=False)
    upper.set(ylabel="Share of human positives", ylim=(0, min(1, 1.1 * float(shares.max()) or 1)), xlim=(0, ranks.max() + 1))
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    lower.bar(centres, passages[there], width=0.85 * width, color=GREY)
    lower.set(xlabel="Rank by the annotator" + (f" (bins of {width})" if width > 1 else ""), ylabel="Passages")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _plain(upper)
    _plain(lower)
    return figure


def _reliability(calibration: dict[str, Any]) -> Figure:
    figure = _figure(5, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfectly calibrated")
    for name, colour, marker, side in (("before", ORANGE, "s", -1), ("after", BLUE, "o", 1)):
        rows, error = calibration[name]["reliability"], calibration[name]["expected_calibration_error"]
        label = f"T = {calibration['temperature']:.2f}" if name == "after" else "uncalibrated"
        shares = [row["positives"] for row in rows]
        upper.plot(
            [row["probability"] for row in rows], shares, color=colour, marker=marker, label=f"{label}, ECE {error:.3f}"
        )
        width = 0.4 * (rows[0]["upto"] - rows[0]["above"])
        centres = [(row["above"] + row["upto"] + side * width) / 2 for row in rows]
        lower.bar(centres, [row["pairs"] for row in rows], width=width, color=colour)
    upper.set(ylabel="Share of human positives", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    upper.legend(frameon=False, loc="upper left")
    lower.set(xlabel="Probability of being positive", ylabel="Pairs")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _plain(upper)
    _plain(lower)
    return figure
