"""Curves of training, from the csv/metrics.csv of run folders."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uar.reporting.figures.style import MARKERS, SERIES, STROKES, capped, legend, need, new, wrapped
from uar.reporting.rows import Row
from uar.reporting.run_folders import RunFolder, unreadable

Points = list[tuple[float, float]]  # (step since the start of the first stage, value)
WINDOW = 0.05  # share of a curve over which the loss is averaged


def loss(rows: Sequence[Row], notes: list[str]) -> tuple[Figure, str]:
    """The loss a step, averaged over a twentieth of the run; a line a seed."""
    figure, axes = new()
    curves = _curves(rows, "/loss", notes)
    need(curves, "no run has a csv/metrics.csv with losses of two steps; train with logger=default or logger=csv")
    for at, label, steps, values in _each(capped(list(curves), "loss", notes), curves):
        width = max(1, round(WINDOW * len(values)))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color=SERIES[at], linestyle=STROKES[at], linewidth=1.2, label=label)
    _over_steps(axes, "Loss")
    legend(axes, figure)
    return figure, "Moving average; a line a seed. Stages follow each other; losses of different kinds are not comparable."


def dev(rows: Sequence[Row], notes: list[str]) -> tuple[Figure, str]:
    """nDCG@10 of the development questions; a line a seed."""
    figure, axes = new()
    curves = _curves(rows, "dev/nDCG@10", notes)
    need(curves, "no run has a csv/metrics.csv with two development scores; train with a dev split, for several epochs")
    for at, label, steps, values in _each(capped(list(curves), "development score", notes), curves):
        look: Any = {"color": SERIES[at], "linestyle": STROKES[at], "marker": MARKERS[at], "markersize": 4}
        axes.plot(steps, values, linewidth=1.2, label=label, **look)
    axes.set_xlim(0, None)
    _over_steps(axes, "nDCG@10, dev")
    legend(axes, figure)
    return figure, "nDCG@10 of the candidate pools of the development questions; a line a seed."


def _each(
    names: Sequence[str], curves: Mapping[str, list[Points]]
) -> Iterator[tuple[int, str | None, np.ndarray, np.ndarray]]:
    """(number of the name, label of its first seed, steps, values) of every curve."""
    for at, name in enumerate(names):
        for seed, points in enumerate(curves[name]):
            steps, values = np.array(points).T
            yield at, wrapped(name) if seed == 0 else None, steps, values


def _over_steps(axes: Axes, ylabel: str) -> None:
    axes.set(xlabel="Step, all stages", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curves(rows: Sequence[Row], column: str, notes: list[str]) -> dict[str, list[Points]]:
    """By name of row; a curve has two points at least."""
    found: dict[str, list[Points]] = {}
    for row in rows:
        curves = [points for seed in row.seeds if len(points := _points(seed[0], column, notes)) > 1]
        if curves:
            found[row.name] = curves
    return found


def _points(run: RunFolder, column: str, notes: list[str]) -> Points:
    """Values of the columns that end so, with steps that count on from stage to stage."""
    path = run.path / "csv" / "metrics.csv"
    if not path.is_file():
        return []
    points: Points = []
    begun, last, stage = 0.0, -1.0, ""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values = {name: value for name, value in row.items() if name and name.endswith(column) and value}
                name = next((n for n in row if n and n.endswith("/loss") and row[n]), stage)
                if not row.get("step"):
                    continue
                step = float(row["step"])
                if stage and name != stage and step <= last:  # the step of a new stage counts from 0
                    begun += last + 1
                stage, last = name, step
                points += [(begun + step, float(value)) for value in values.values()]
    except (OSError, ValueError, csv.Error) as error:
        notes.append(unreadable(run.name, "csv/metrics.csv", error))
    return points
