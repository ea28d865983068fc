"""Our runs in the layout of a table of the paper, with the paper's values beside them (`paper/*.yaml`)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from uar.errors import UserError
from uar.reporting.alike import unlike
from uar.reporting.judge_columns import made_otherwise
from uar.reporting.marks import Marks
from uar.reporting.result_table import QUESTIONS, Cell, Column, Line, Table, cell, columns_of, marked, placed
from uar.reporting.rows import Row, stand_in

FOLDER = Path(__file__).parent / "paper"
Weights = Mapping[str, float]
BySeed = list[float | None]  # None: a seed without the value


@dataclass(frozen=True)
class PaperColumn:
    """`collection`: a pattern of slugs, or several parted by `|`, or a list of these whose values are averaged where all are
    there. `measure`: a name, or several with weights, which are summed."""

    heading: str
    part: str
    measure: str | Weights
    group: str = ""
    collection: str | tuple[str, ...] = ""
    scale: float = 100.0
    digits: int = 1
    lower: bool = False
    ranked: bool = True

    @property
    def of_collections(self) -> bool:
        return self.part in ("retrieval", "rag")

    def shown(self, paper: bool = True, ours: bool = True) -> Column:
        group = self.group if ours else f"paper, {self.group}".removesuffix(", ")
        return Column(group, self.heading, self.scale, self.digits, self.lower, self.ranked, paper, ours)

    @property
    def patterns(self) -> tuple[str, ...]:
        return (self.collection,) if isinstance(self.collection, str) else self.collection

    def slugs(self, rows: Sequence[Row]) -> list[str]:
        """Those of the rows' collections that belong to the column."""
        there = dict.fromkeys(slug for row in rows for slug in row.slugs)
        return [slug for slug in there if any(_belongs(slug, pattern) for pattern in self.patterns)]

    def values(self, row: Row, measure: str | Weights) -> list[float]:
        """A value a seed; none of a seed that lacks a collection or a part of the sum."""
        if not self.of_collections:
            return _whole([_summed(row, self.part, "", measure)])
        return _whole([self._first(row, pattern, measure) for pattern in self.patterns])

    def _first(self, row: Row, pattern: str, measure: str | Weights) -> BySeed:
        """Of the first collection that the pattern fits and that has values."""
        found = (_summed(row, self.part, slug, measure) for slug in row.slugs if _belongs(slug, pattern))
        return next((values for values in found if any(v is not None for v in values)), [None] * len(row.seeds))


@dataclass(frozen=True)
class PaperRow:
    """`match`: alternatives, each of patterns by dotted config name. `measures`: by heading, what this row takes instead."""

    name: str
    match: tuple[Mapping[str, Any], ...]
    values: Mapping[str, float]
    measures: Mapping[str, str | Weights]

    def matches(self, row: Row) -> bool:
        return any(all(_fits(row.config.get(key), wanted) for key, wanted in one.items()) for one in self.match)


@dataclass(frozen=True)
class PaperTable:
    key: str
    title: str
    note: str
    columns: list[PaperColumn]
    rows: list[PaperRow]


def _belongs(slug: str, pattern: str) -> bool:
    return any(fnmatchcase(slug, one) for one in pattern.split("|"))


def _summed(row: Row, part: str, slug: str, measure: str | Weights) -> BySeed:
    weights = {measure: 1.0} if isinstance(measure, str) else measure
    found = [row.by_seed(part, slug, name) for name in weights]
    factors = list(weights.values())
    return [
        None if None in values else sum(f * v for f, v in zip(factors, values, strict=True) if v is not None)
        for values in zip(*found, strict=True)
    ]


def _whole(parts: Sequence[BySeed]) -> list[float]:
    """The mean over the parts, of the seeds that have all of them."""
    seeds = [[value for value in values if value is not None] for values in zip(*parts, strict=True)]
    return [sum(values) / len(values) for values in seeds if len(values) == len(parts)]


def _fits(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_fits(given, one) for one in wanted)
    if isinstance(wanted, str) and given is not None:
        return fnmatchcase(str(given), wanted)
    if isinstance(wanted, bool) or isinstance(given, bool) or given is None or wanted is None:
        return given is wanted
    return isinstance(given, int | float) and abs(given - wanted) < 1e-9


def names() -> list[str]:
    """Of the tables and figures that can be asked for."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=lambda name: (name.rstrip("0123456789"), len(name), name))


@cache
def read_paper(name: str) -> PaperTable:
    """UserError where no file has that name."""
    if name not in names():
        raise UserError(f"paper={name}: no such table; allowed: {', '.join(names())}")
    found = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    columns = [
        PaperColumn(**{**c, "collection": tuple(c["collection"])} if isinstance(c.get("collection"), list) else c)
        for c in found["columns"]
    ]
    rows = [PaperRow(r["name"], tuple(r["match"]), r.get("paper") or {}, r.get("measures") or {}) for r in found["rows"]]
    return PaperTable(name, found["title"], found.get("note", ""), columns, rows)


def asked_for(names_given: Sequence[str] | None, rows: Sequence[Row]) -> list[PaperTable]:
    """The tables of that name, or those whose experiment a run belongs to (`experiment: table2_in_domain` to table2)."""
    if names_given is not None:
        return [read_paper(name) for name in names_given]
    experiments = set(map(_experiment, rows))
    return [read_paper(name) for name in names() if name in experiments]


def paper_table(paper: PaperTable, rows: Sequence[Row], by_row: Mapping[str, Marks], baseline: str = "") -> Table:
    """The paper's rows and columns with our values; where we have none of its collections, ours first with a note. Columns of
    which neither has a value to show are left out."""
    notes = [paper.note] if paper.note else []
    rows = _of_experiment(paper, rows)
    if any(row.config.get("scale") == "mini" for row in rows):
        notes.append("With scale=mini the packaged model and collection stand in for the paper's.")
    own = []
    if any(c.of_collections for c in paper.columns) and not any(c.of_collections and c.slugs(rows) for c in paper.columns):
        own = _own_columns(paper, rows)
        if own:
            here = ", ".join(dict.fromkeys(c.group for c in own))
            notes.append(f"The paper's columns are of other collections than these runs' ({here}), whose values come first.")
    columns = [*own, *paper.columns]
    lines = list(_lines(paper, columns, rows, by_row, baseline))
    notes += _asked(columns, rows) + _lengths(paper, rows)
    missing = [line.name for line in lines if not line.aside and all(c.value is None for c in line.cells)]
    if missing:
        notes.append(f"No run of: {'; '.join(missing)}.")
    known = {heading for row in paper.rows for heading in row.values}
    shown = [
        replace(
            c.shown(c not in own and c.heading in known, c in own or not own or not c.of_collections),
            ranked=c.ranked and not (c.of_collections and any(_made_otherwise(rows, slug, c) for slug in c.slugs(rows))),
        )
        for c in columns
    ]
    lines = [replace(line, cells=[c for c, column in zip(line.cells, shown, strict=True) if column.heads()]) for line in lines]
    shown = [column for column in shown if column.heads()]
    return Table(paper.key, paper.title, shown, placed(shown, lines), notes, head="method")


def _experiment(row: Row) -> str:
    """`table2` of a run of the experiment `table2_in_domain`."""
    return str(row.config.get("experiment") or "").partition("_")[0]


def _of_experiment(paper: PaperTable, rows: Sequence[Row]) -> Sequence[Row]:
    """Without the runs of other experiments, where there are some of the table's own."""
    if not any(_experiment(row) == paper.key for row in rows):
        return rows
    return [row for row in rows if _experiment(row) in ("", paper.key)]


def _own_columns(paper: PaperTable, rows: Sequence[Row]) -> list[PaperColumn]:
    parts = list(dict.fromkeys(c.part for c in paper.columns if c.of_collections))
    asked = {(c.part, c.measure) for c in paper.columns}
    found = []
    for part in parts:
        there = columns_of(rows, part)
        wanted = [c for c in there if (part, c[1]) in asked] or there
        found += [PaperColumn(measure, part, measure, slug, slug) for slug, measure in wanted]
    return found


def _lines(
    paper: PaperTable, columns: Sequence[PaperColumn], rows: Sequence[Row], by_row: Mapping[str, Marks], baseline: str
) -> Iterator[Line]:
    for wanted in paper.rows:
        lines = {row.name: _cells(columns, row, wanted, by_row, baseline) for row in rows if wanted.matches(row)}
        matching = [row for row in rows if any(c.value is not None for c in lines.get(row.name, ()))]
        for row in matching:
            name = " · ".join(filter(None, (f"{wanted.name}{_stand_in(row)}", _among(row, matching))))
            yield Line(name, lines[row.name], row=row.name)
        if not matching:
            yield Line(wanted.name, [Cell(paper=wanted.values.get(c.heading)) for c in columns])
    for row in rows:
        if any(wanted.matches(row) for wanted in paper.rows):
            continue
        cells = _cells(columns, row, None, by_row, baseline)
        if any(c.value is not None for c in cells):
            yield Line(row.name, cells, aside=True)


def _made_otherwise(rows: Sequence[Row], slug: str, column: PaperColumn) -> bool:
    """Whether not all rows have a column's values of a collection measured alike."""
    names = [column.measure] if isinstance(column.measure, str) else column.measure
    return bool(unlike(rows, slug)) or any((slug, name) in made_otherwise(rows, slug) for name in names)


def _asked(columns: Sequence[PaperColumn], rows: Sequence[Row]) -> list[str]:
    """How many questions the answers of each collection are of."""
    slugs = dict.fromkeys(slug for c in columns if c.part == "rag" for slug in c.slugs(rows))
    counts = {s: sorted({int(n) for row in rows for n in row.values("rag", s, QUESTIONS)}) for s in slugs}
    said = [f"{slug} {' or '.join(f'{n:,}' for n in found)}" for slug, found in counts.items() if found]
    return [f"Questions answered: {', '.join(said)}."] if said else []


def _lengths(paper: PaperTable, rows: Sequence[Row]) -> list[str]:
    """How much of a query and a passage our retrievers read, which the paper's values need not share."""
    if not any(c.part == "retrieval" for c in paper.columns):
        return []
    measured = [run.manifest.get("measured") or {} for row in rows for run in row.folders]
    read = sorted(
        {(m["query_length"], m["passage_length"]) for m in measured if {"query_length", "passage_length"} <= m.keys()}
    )
    said = " or ".join(f"{query} and {passage}" for query, passage in read)
    return [f"Ours read of a query and a passage {said} tokens."] if read else []


def _stand_in(row: Row) -> str:
    who = stand_in(row)
    return f" (stand-in: {who})" if who else ""


def _among(row: Row, rows: Sequence[Row]) -> str:
    """The words of a row's name that not all of the rows have."""
    words = [other.name.split(", ") for other in rows]
    return ", ".join(word for word in row.name.split(", ") if not all(word in other for other in words))


def _cells(
    columns: Sequence[PaperColumn], row: Row, wanted: PaperRow | None, by_row: Mapping[str, Marks], baseline: str
) -> list[Cell]:
    return [_cell(column, row, wanted, by_row.get(row.name, {}), baseline) for column in columns]


def _cell(column: PaperColumn, row: Row, wanted: PaperRow | None, found: Marks, baseline: str) -> Cell:
    measure = (wanted.measures.get(column.heading) if wanted else None) or column.measure
    made = cell(column.values(row, measure), column.scale)
    slugs = column.slugs([row]) if column.of_collections else []
    if len(slugs) == 1 and isinstance(measure, str):
        made = marked(made, found.get((slugs[0], measure)), baseline)
    return replace(made, paper=wanted.values.get(column.heading) if wanted else None)
