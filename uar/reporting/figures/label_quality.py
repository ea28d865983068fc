"""What annotators chose: positives a question, precision and recall."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from uar.errors import UserError
from uar.reporting.figures.style import INK, MARKERS, SERIES, capped, legend, need, new, wrapped
from uar.reporting.paper_table import read_paper
from uar.reporting.rows import Row
from uar.reporting.run_folders import unreadable
from uar.storage.label_files import NAME, read_label_columns

FEWEST = 4  # numbers of positives that are shown at least, so that bars stay bars


def positives(rows: Sequence[Row], notes: list[str]) -> tuple[Figure, str]:
    """Share of questions by number of positives, from labels.parquet; equal distributions are one line."""
    found: dict[tuple[tuple[int, int], ...], list[str]] = {}
    for row in rows:
        for name, counts in _counts(row, notes).items():
            found.setdefault(tuple(sorted(counts.items())), []).append(name)
    need(found, "no run has a labels.parquet; annotate or train one")
    numbers = {number for counts in found for number, _ in counts}
    need(len(numbers) > 1, f"every question has {max(numbers)} in all runs")
    named = {(names[0] if len(names) == 1 else f"{names[0]} (+{len(names) - 1})"): c for c, names in found.items()}
    figure, axes = new()
    kept = capped(list(named), "positives of a question", notes)
    width = 0.8 / len(kept)
    for at, name in enumerate(kept):
        numbers, queries = np.array(named[name]).T
        mean = (numbers * queries).sum() / queries.sum()
        places = numbers + width * (at - (len(kept) - 1) / 2)
        axes.bar(places, queries / queries.sum(), width, color=SERIES[at], label=wrapped(f"{name}, mean {mean:.1f}"))
    axes.set(xlabel="Positives of a question", ylabel="Share of the questions", ylim=(0, None))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    most = max(number for counts in named.values() for number, _ in counts)
    axes.set_xlim(-0.6, max(most, FEWEST) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)
    legend(axes, figure)
    return figure, "Questions by the number of passages labelled positive; (+n): n more runs have the same labels."


def _counts(row: Row, notes: list[str]) -> dict[str, Counter[int]]:
    """Number of questions by number of positives, by name of row and stage."""
    path = row.first.path / NAME
    if not path.is_file():
        return {}
    try:
        columns = read_label_columns(path, ("stage", "query_id", "label")).to_pydict()
    except UserError as error:
        notes.append(unreadable(row.name, NAME, error))
        return {}
    chosen: dict[str, Counter[str]] = {}
    for stage, query, label in zip(*columns.values(), strict=True):
        chosen.setdefault(stage or "", Counter())[query] += int(label or 0)
    alone = len(chosen) == 1
    return {row.name if alone else f"{row.name} · {stage}": Counter(c.values()) for stage, c in chosen.items()}


def precision_recall(rows: Sequence[Row], notes: list[str]) -> tuple[Figure, str]:
    """A point an annotator, with 95 % intervals where they are known; the paper's as hollow points."""
    there = {row.name: row for row in rows if row.values("agreement", "", "precision")}
    need(there, "no run has an agreement.json; annotate a split that people judged")
    figure, axes = new(3.6)
    for known in read_paper("table1").rows:
        point = known.values["recall"] / 100, known.values["precision"] / 100
        axes.plot(*point, "o", markerfacecolor="none", color=INK, markersize=4)
        left = known.name.startswith("Llama")  # where the two models' points lie side by side
        align: Any = {"ha": "right" if left else "left", "va": "center", "size": 7}
        axes.annotate(known.name, point, (-5 if left else 5, -1), textcoords="offset points", **align)
    for at, name in enumerate(capped(list(there), "precision and recall of annotators", notes)):
        row = there[name]
        recall, precision = (row.values("agreement", "", m)[0] for m in ("recall", "precision"))
        bounds = row.first.agreement.get("intervals", {})
        errors = [_reach(bounds.get(m), v) for m, v in (("recall", recall), ("precision", precision))]
        look: Any = {"fmt": MARKERS[at], "color": SERIES[at], "elinewidth": 1, "label": wrapped(name)}
        axes.errorbar(recall, precision, yerr=errors[1], xerr=errors[0], **look)
    axes.set(xlabel="Recall of the human positive", ylabel="Precision", xlim=(0, 1.05), ylim=(0, 1.05))
    legend(axes, figure)
    return figure, "Bars: 95 % intervals over questions. Hollow: the paper's annotators on MS MARCO."


def _reach(bound: Sequence[float] | None, value: float) -> list[list[float]] | None:
    return None if bound is None else [[max(0.0, value - bound[0])], [max(0.0, bound[1] - value)]]
