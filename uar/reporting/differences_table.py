"""How far each row is from the baseline: over the questions, and over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from uar.evaluation.significance import t_test
from uar.reporting.marks import Marks
from uar.reporting.result_table import Cell, Column, Line, Table, first_measures
from uar.reporting.rows import Row

SEEDS = "p, seeds"


def differences_table(rows: Sequence[Row], baseline: Row, by_row: Mapping[str, Marks]) -> Table | None:
    """Of the first retrieval measure of each collection: the difference of the means with its 95 % interval, the p of the
    paired t-test over questions (`by_row`, Holm's correction), and that over seeds that both rows have. None where no row has
    been tested."""
    measures = first_measures(rows)
    tested = [row for row in rows if any((slug, m) in by_row.get(row.name, {}) for slug, m in measures.items())]
    measures = {s: m for s, m in measures.items() if any((s, m) in by_row[row.name] for row in tested)}
    columns = [column for slug, measure in measures.items() for column in _columns(f"{slug}, {measure}")]
    lines = [
        Line(row.name, [cell for slug, m in measures.items() for cell in _cells(row, baseline, by_row[row.name], slug, m)])
        for row in tested
    ]
    if not lines:
        return None
    notes = ["p over questions: two-sided paired t-test, of the means of seeds, after Holm's correction over collections."]
    shown = [at for at in range(len(columns)) if any(line.cells[at].value is not None for line in lines)]
    columns = [columns[at] for at in shown]
    lines = [replace(line, cells=[line.cells[at] for at in shown]) for line in lines]
    if any(column.heading == SEEDS for column in columns):
        notes.append("p over seeds: two-sided paired t-test of the seeds' means; each seed that both have is one pair.")
    return Table("differences", f"Differences from {baseline.name}", columns, lines, notes)


def _columns(group: str) -> list[Column]:
    values = [Column(group, heading, ranked=False, digits=4) for heading in ("difference", "low", "high")]
    return [*values, *(Column(group, heading, ranked=False, p=True) for heading in ("p, questions", SEEDS))]


def _cells(row: Row, baseline: Row, marks: Marks, slug: str, measure: str) -> list[Cell]:
    mark = marks.get((slug, measure), {})
    values = [mark.get(name) for name in ("difference", "low", "high", "p t-test (Holm)")]
    return [*map(Cell, values), Cell(_over_seeds(row, baseline, slug, measure))]


def _over_seeds(row: Row, baseline: Row, slug: str, measure: str) -> float | None:
    ours, theirs = (_by_seed(one, slug, measure) for one in (row, baseline))
    return t_test(np.array([value - theirs[seed] for seed, value in ours.items() if seed in theirs]))


def _by_seed(row: Row, slug: str, measure: str) -> dict[object, float]:
    seeds = [seed[0].config.get("seed") for seed in row.seeds]
    values = row.by_seed("retrieval", slug, measure)
    return {seed: value for seed, value in zip(seeds, values, strict=True) if value is not None}
