"""Scores of the queries that a click log has often, less often, and seldom or never."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from uar.collections.click_log import click_lines
from uar.collections.frequency_bands import BANDS, bands, frequencies
from uar.errors import UserError
from uar.reporting.result_table import Cell, Column, Line, Table, first_measures, placed
from uar.reporting.rows import Row


def band_table(rows: Sequence[Row], path: Path, notes: list[str]) -> Table:
    """Of the first retrieval measure of each collection, the mean over the queries of each band, of the means of seeds.
    UserError where the log has no query of any collection. `notes` grows by what is missing."""
    lines = (line for _, line, _ in click_lines(path))
    asked = frequencies((line.query_id, line.doc_id, line.impressions) for line in lines)
    columns, cells = [], dict[str, list[Cell]]({row.name: [] for row in rows})
    for slug, measure in first_measures(rows).items():
        found = {row.name: row.scores(slug, notes).get(measure, {}) for row in rows}
        queries = list(dict.fromkeys(q for values in found.values() for q in values))
        if not asked.keys() & set(queries):
            notes.append(f"{path} has no query of {slug}, which has no scores by band")
            continue
        of = bands(asked, queries)
        for band in BANDS:
            own = [q for q in queries if of[q] == band]
            columns.append(Column(f"{slug}, {measure}", f"{band} ({len(own)})"))
            for name, values in found.items():
                there = [values[q] for q in own if q in values]
                cells[name].append(Cell(fmean(there) if there and len(there) == len(own) else None))
    if not columns:
        raise UserError(f"bands={path}: the log has no query of the runs' collections; give the log of the tests' queries")
    shown = [Line(row.name, cells[row.name]) for row in rows if any(c.value is not None for c in cells[row.name])]
    told = "Head: the tenth of the questions that is asked most often; torso: the next three tenths; tail: all others."
    return Table("bands", "By how often a question is asked", columns, placed(columns, shown), [told])
