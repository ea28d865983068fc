"""Curves over one option of a sweep: the human share, the threshold of a ranking."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from uar.reporting.figures.measure import interval, shown_measure
from uar.reporting.figures.missing import Missing
from uar.reporting.figures.style import MARKERS, SERIES, STROKES, capped, legend, need, new, wrapped
from uar.reporting.rows import Row, method_key

Curves = Mapping[str, list[tuple[float, Row]]]  # by name: (value of the option, row), in order
FRACTION = "label_source.human_frac"
SOURCES = ("HumanLabels", "LLMLabels", "MixedLabels")
TICKS = 7  # more values than this share ticks
BAND = "Dots: single seeds. Bands: 95 % intervals of the mean over questions."


def threshold(rows: Sequence[Row], notes: list[str]) -> tuple[Figure, str]:
    """UtilRank's k %, or that of another annotator with `rule=top_percent`."""
    groups: dict[str, list[tuple[float, Row]]] = {}
    for row in rows:
        value = row.config.get("annotator.threshold")
        ranked = row.config.get("annotator.rule", "top_percent") == "top_percent"
        if isinstance(value, int | float) and ranked and _labelled_by_llm(row):
            groups.setdefault(method_key(row.first, ["annotator.threshold", "method"]), []).append((float(value), row))
    curves = _curves(groups, "annotator.threshold of two runs or more (-m annotator.threshold=10,20,30)")
    return _draw(curves, "Positive share of the ranking, %", notes)


def _labelled_by_llm(row: Row) -> bool:
    return str(row.config.get("label_source._target_", "")).endswith(("LLMLabels", "MixedLabels"))


def human_budget(rows: Sequence[Row], notes: list[str]) -> tuple[Figure, str]:
    """Quality by the share of questions with human labels, a curve a way to spend it; LLM labels alone are at 0 of the ways
    that mix."""
    groups: dict[str, list[tuple[float, Row]]] = {}
    alone: dict[str, Row] = {}
    for row in rows:
        source = str(row.config.get("label_source._target_", "")).rpartition(".")[2]
        key = method_key(row.first, ["label_source.", "human_frac", "method"])
        value = row.config.get(FRACTION)
        if source == "LLMLabels":
            alone[key] = row
        elif source in SOURCES and isinstance(value, int | float):
            rest = [method_key(row.first, ["human_frac", FRACTION, "method"]), source]
            groups.setdefault("\n".join([key, *rest]), []).append((float(value), row))
    for name, points in groups.items():
        key, _, source = name.split("\n")
        if source == "MixedLabels" and key in alone and all(value for value, _ in points):
            points.append((0.0, alone[key]))
    curves = _curves(groups, "runs with two human shares or more (-m human_frac=0,0.2,1)")
    return _draw(curves, "Share of the questions with human labels", notes, share=True)


def _curves(groups: Mapping[str, list[tuple[float, Row]]], wanted: str) -> Curves:
    found: dict[str, list[tuple[float, Row]]] = {}
    for points in groups.values():
        if len({value for value, _ in points}) > 1:
            ordered = sorted(points, key=lambda point: point[0])
            name = _told(ordered[-1][1])
            while name in found:
                name += "′"
            found[name] = ordered
    if not found:
        raise Missing(f"needs {wanted}")
    return found


def _told(row: Row) -> str:
    config = row.config
    words = [str(config.get("label_source._target_", "")).rpartition(".")[2].removesuffix("Labels").lower()]
    acquire = str(config.get("label_source.acquire._target_") or "").rpartition(".")[2].removesuffix("Acquisition").lower()
    words += [str(config.get("label_source.strategy") or ""), str(config.get("label_source.allocation") or acquire)]
    words.append(str(config.get("loss._target_", "")).rpartition(".")[2])
    return ", ".join(word for word in words if word)


def _draw(curves: Curves, label: str, notes: list[str], share: bool = False) -> tuple[Figure, str]:
    shown = shown_measure([row for points in curves.values() for _, row in points])
    if shown is None:
        raise Missing("the runs have no retrieval scores")
    slug, measure = shown
    figure, axes = new()
    for at, name in enumerate(capped(list(curves), label, notes)):
        _curve(axes, at, name, curves[name], slug, measure, notes)
    need(axes.lines, f"no two of the runs have {measure} of {slug}")
    axes.set(xlabel=label, ylabel=f"{measure}, {slug}")
    places = sorted({x for points in curves.values() for x, _ in points})
    if len(places) <= TICKS:
        axes.set_xticks(places)
    if share:
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    legend(axes, figure)
    return figure, f"{measure} on {slug}. {BAND}"


def _curve(axes: Axes, at: int, name: str, points: list[tuple[float, Row]], slug: str, measure: str, notes: list[str]) -> None:
    scored = [(x, row, values) for x, row in points if (values := row.values("retrieval", slug, measure))]
    if len(scored) < 2:
        return
    places, means = [x for x, _, _ in scored], [fmean(values) for _, _, values in scored]
    look: Any = {"color": SERIES[at], "linestyle": STROKES[at], "marker": MARKERS[at], "markersize": 5}
    axes.plot(places, means, linewidth=1.4, label=wrapped(name), **look)
    for x, _, values in scored:
        if len(values) > 1:
            axes.plot([x] * len(values), values, ".", color=SERIES[at], markersize=3, alpha=0.6)
    bands = [(x, bound) for x, row, _ in scored if (bound := interval(row, slug, measure, notes))]
    if len(bands) > 1:
        low, high = zip(*(bound for _, bound in bands), strict=True)
        axes.fill_between([x for x, _ in bands], low, high, color=SERIES[at], alpha=0.12, linewidth=0)
