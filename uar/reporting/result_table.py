"""Tables over rows: best and second best, significance marks, the paper's value beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from statistics import fmean, stdev
from typing import Any

from uar.collections.presets import averaged
from uar.evaluation.rag.answer_measures import BERT, MEASURES
from uar.reporting.alike import unlike
from uar.reporting.deep_measures import too_deep
from uar.reporting.judge_columns import LINES, agreeing, failed, judged_of, made_otherwise
from uar.reporting.marks import Marks, described
from uar.reporting.rows import Row

DASH = "–"
QUESTIONS = "questions"
RAG = (*MEASURES, BERT)
Part = tuple[str, str, str]  # part of metrics.json, slug, measure


@dataclass(frozen=True)
class Column:
    """`group`: what stands above the measure, such as the collection. Values are shown times `scale`. `lower`: less is better.
    `paper`: whether the paper's values stand beside ours; `ours`: whether ours do at all. `count`: what the values rest on and
    no result, such as a number of questions. `p`: chances, however small, which have two digits that say something."""

    group: str
    heading: str
    scale: float = 1.0
    digits: int = 3
    lower: bool = False
    ranked: bool = True
    paper: bool = False
    ours: bool = True
    count: bool = False
    p: bool = False

    def heads(self) -> list[str]:
        """Headings of what is shown: ours, the paper's or both."""
        return [self.heading] * self.ours + ["paper" if self.ours else self.heading] * self.paper

    def number(self, value: float) -> str:
        return f"{value:.2g}" if self.p else f"{value:,.{self.digits}f}"


@dataclass(frozen=True)
class Cell:
    """`value` as shown, the mean of `seeds` runs with their standard `deviation` (n − 1; None of one run). `place`: 1 the best
    of its column, 2 the second best, 0 another. `mark`: + or − where it differs from the baseline; `note`: how. `alone`: the
    number of seeds is told elsewhere."""

    value: float | None = None
    deviation: float | None = None
    seeds: int = 0
    place: int = 0
    mark: str = ""
    note: str = ""
    paper: float | None = None
    alone: bool = False

    def number(self, column: Column) -> str:
        return DASH if self.value is None else column.number(self.value)

    def spread(self, column: Column) -> str:
        seeds = "" if self.alone else f" ({self.seeds})"
        return "" if self.deviation is None else f" ± {column.number(self.deviation)}{seeds}"

    def beside(self, column: Column) -> str:
        return DASH if self.paper is None else column.number(self.paper)


@dataclass(frozen=True)
class Line:
    """A row as shown; `aside`: no row of the paper's. `row`: whose values they are, where `name` is the paper's."""

    name: str
    cells: list[Cell]
    aside: bool = False
    row: str = ""


@dataclass(frozen=True)
class Table:
    """`shared`: what all lines have in common, which stands above them once. `notes` stand below."""

    key: str
    title: str
    columns: list[Column]
    lines: list[Line]
    notes: list[str] = field(default_factory=list)
    head: str = "run"
    shared: list[str] = field(default_factory=list)


def cell(values: Sequence[float], scale: float = 1.0) -> Cell:
    """The mean of the seeds' values with their standard deviation."""
    if not values:
        return Cell()
    deviation = stdev(values) * scale if len(values) > 1 else None
    return Cell(fmean(values) * scale, deviation, len(values))


def placed(columns: Sequence[Column], lines: Sequence[Line]) -> list[Line]:
    """The lines with the best and the second best value of each column marked; equal values share a place, and where all are
    equal none is marked."""
    places: list[dict[float, int]] = []
    for at, column in enumerate(columns):
        values = {line.cells[at].value for line in lines} - {None}
        order = sorted((v for v in values if v is not None), reverse=not column.lower)
        places.append({} if len(values) < 2 or not column.ranked else {v: n for n, v in enumerate(order[:2], start=1)})
    return [
        replace(line, cells=[replace(c, place=p.get(c.value, 0) if c.value is not None else 0) for c, p in pairs])
        for line in lines
        for pairs in [list(zip(line.cells, places, strict=True))]
    ]


def marked(found: Cell, mark: Mapping[str, Any] | None, baseline: str) -> Cell:
    return replace(found, mark=mark["mark"], note=described(mark, baseline)) if mark else found


def columns_of(rows: Sequence[Row], part: str) -> list[tuple[str, str]]:
    """(slug, measure) of all that a row has in retrieval or rag; answer measures from what was found, from none, from gold."""
    wanted: dict[tuple[str, str], None] = {}
    for slug in _slugs(rows):
        there = [run.metrics[part].get(slug, {}) for row in rows for run in row.folders]
        if part == "retrieval":
            names = list(dict.fromkeys(m for found in there for m, value in found.items() if isinstance(value, int | float)))
        else:
            names = [m for m in RAG if any(m in found for found in there)]
            judged = list(judged_of(rows, slug))
            names += [name for name in judged if " (" not in name]
            names += [f"{m} ({at})" for at in LINES for m in RAG if any(m in found.get(at, {}) for found in there)]
            names += [name for name in judged if " (" in name]
        wanted.update(dict.fromkeys((slug, name) for name in names))
    return list(wanted)


def _slugs(rows: Sequence[Row]) -> list[str]:
    """Of the rows' collections, without the parts of a set that counts as one; those of a run that lacks other parts stay."""
    whole = averaged({slug: {} for row in rows for slug in row.slugs})
    wanted = dict.fromkeys(s for row in rows for run in row.folders for s in averaged({slug: {} for slug in run.slugs}))
    return [slug for slug in whole if slug in wanted] + [slug for slug in wanted if slug not in whole]


def first_measures(rows: Sequence[Row]) -> dict[str, str]:
    """The first retrieval measure of each collection, by slug."""
    found: dict[str, str] = {}
    for slug, measure in columns_of(rows, "retrieval"):
        found.setdefault(slug, measure)
    return found


def plain_table(
    key: str,
    title: str,
    rows: Sequence[Row],
    parts: Sequence[Part],
    columns: Sequence[Column],
    by_row: Mapping[str, Marks],
    baseline: str = "",
) -> Table | None:
    """A line a row that has something of `parts` (part, slug, measure), one a column; None where no row has."""
    lines = []
    for row in rows:
        cells = [cell(row.values(*part), column.scale) for part, column in zip(parts, columns, strict=True)]
        if any(c.value is not None for c in cells):
            found = by_row.get(row.name, {})
            pairs = zip(cells, columns, strict=True)
            cells = [replace(c, deviation=None) if column.count and not c.deviation else c for c, column in pairs]
            cells = [marked(c, found.get((slug, name)), baseline) for c, (_, slug, name) in zip(cells, parts, strict=True)]
            lines.append(Line(row.name, cells))
    shown = [
        replace(column, ranked=column.ranked and not unlike(rows, slug) and (slug, name) not in made_otherwise(rows, slug))
        for column, (_, slug, name) in zip(columns, parts, strict=True)
    ]
    return Table(key, title, shown, placed(shown, lines)) if lines else None


def _counted(rows: Sequence[Row], slug: str) -> list[tuple[str, str]]:
    """A column for the number of questions that were answered, where it is known."""
    return [(slug, QUESTIONS)] if any(row.values("rag", slug, QUESTIONS) for row in rows) else []


def score_table(
    key: str,
    title: str,
    rows: Sequence[Row],
    part: str,
    by_row: Mapping[str, Marks],
    baseline: str = "",
    deepest: float = 1.0,
) -> Table | None:
    """All values of `part` (retrieval or rag): a group of columns a collection, after the number of questions that each row
    was trained on. `deepest`: see `too_deep`."""
    wanted = columns_of(rows, part)
    left_out = {at: said for at in wanted if part == "retrieval" and (said := too_deep(rows, *at, deepest))}
    wanted = [at for at in wanted if at not in left_out]
    columns = [Column(*at) for at in wanted]
    notes = list(left_out.values())
    if part == "rag":
        notes = [said for slug in dict(wanted) for at, said in made_otherwise(rows, slug).items() if at in wanted]
        wanted, columns = _answer_columns(rows, wanted)
    shown = trained_first(rows, [(part, *at) for at in wanted], columns)
    table = plain_table(key, title, *shown, by_row, baseline)
    return replace(table, notes=[*table.notes, *notes]) if table else None


def _answer_columns(rows: Sequence[Row], wanted: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[Column]]:
    """(names, columns): after each judged measure the share of questions that failed, and after those of a collection the
    number of its questions."""
    found: list[tuple[tuple[str, str], Column]] = []
    for slug, of_slug in groupby(wanted, key=itemgetter(0)):
        judged = judged_of(rows, slug)
        for at in of_slug:
            found.append((at, Column(*at)))
            if at[1] in judged:
                found.append(((slug, failed(at[1])), Column(slug, f"{at[1]} failed", ranked=False, count=True)))
        found += [(at, Column(*at, digits=0, ranked=False, count=True)) for at in _counted(rows, slug)]
    return [at for at, _ in found], [column for _, column in found]


def judge_agreement_table(rows: Sequence[Row]) -> Table | None:
    """How judged measures agree with those that compare with gold answers, by run."""
    wanted = [(slug, heading, name) for slug in _slugs(rows) for heading, name in agreeing(rows, slug)]
    columns = [Column(slug, heading, ranked=False) for slug, heading, _ in wanted]
    parts = [("rag", slug, name) for slug, _, name in wanted]
    table = plain_table("judges", "Judged measures against gold answers", rows, parts, columns, {})
    told = (
        "Kendall's tau over the questions that have both values; a dash where one value is the same for all, or under three."
    )
    return replace(table, notes=[told]) if table else None


def trained_first(
    rows: Sequence[Row], parts: Sequence[Part], columns: Sequence[Column]
) -> tuple[list[Row], Sequence[Part], Sequence[Column]]:
    """What `plain_table` takes, for the rows that have scores, with the questions that they were trained on first, and
    how many of these people labelled where that differs."""
    scored = [row for row in rows if any(row.values(*part) for part in parts)]
    for name, heading in (("people", "by people"), (QUESTIONS, QUESTIONS)):
        found = {value for row in scored for value in row.values("learnt", "", name)}
        if found and (name == QUESTIONS or len(found) > 1):
            parts = [("learnt", "", name), *parts]
            columns = [Column("trained on", heading, digits=0, ranked=False, count=True), *columns]
    return scored, parts, columns


def search_table(rows: Sequence[Row]) -> Table | None:
    """What each row's search says of itself: how fast it answered, what it looks at, and what it missed."""
    found: dict[str, dict[str, None]] = {}
    for slug, facts in (item for row in rows for run in row.folders for item in run.manifest.get("search", {}).items()):
        found.setdefault(slug, {}).update(
            dict.fromkeys(name for name, value in facts.items() if isinstance(value, int | float))
        )
    wanted = [(slug, name) for slug, names in found.items() for name in names]
    columns = [
        Column(
            slug,
            name.replace("_", " "),
            digits=1 if "_per_" in name else 3,
            lower="bytes" in name,
            ranked=not name.startswith("weight of"),
        )
        for slug, name in wanted
    ]
    table = plain_table("search", "Search", rows, [("search", *at) for at in wanted], columns, {})
    told = "Questions per second: encoding the question, searching and re-ranking, without encoding or indexing the corpus."
    return replace(table, notes=[told]) if table else None


def agreement_table(rows: Sequence[Row]) -> Table | None:
    """How labels agree with people's, by annotate run."""
    shares = ["precision", "recall", "human_positive_ranked_first", "judged_precision", "auroc", "kappa", "weighted_kappa"]
    held = {f"answers.{who}.hold_an_answer": who for who in ("both", "people_alone", "annotator_alone", "neither")}
    measures = [*shares[:2], "average_positives", *shares[2:], "queries", *held]
    measures = [m for m in measures if any(row.values("agreement", "", m) for row in rows)]
    columns = [
        Column("holds a gold answer, chosen by", held[m].replace("_", " "), ranked=False)
        if m in held
        else Column("", m.replace("_", " "), ranked=m != "average_positives")
        if m != "queries"
        else Column("", m, digits=0, ranked=False, count=True)
        for m in measures
    ]
    table = plain_table("agreement", "Labels against people's", rows, [("agreement", "", m) for m in measures], columns, {})
    gates = [f"{row.name}: {_decision(run.gate)}" for row in rows for run in row.folders if run.gate]
    return replace(table, notes=[*table.notes, *gates]) if table else None


def _decision(gate: Mapping[str, Any]) -> str:
    """Of an annotate run's gate, in words."""
    of = gate["deciding"]
    value, low = ("undefined" if of[name] is None else f"{of[name]:.3f}" for name in ("value", "low"))
    said = f"{gate['measure']} {value} over {of['questions']} questions that decided, at least {low} with {gate['level']:.0%}"
    return f"the gate was {'passed' if gate['passed'] else 'closed'}: {said} confidence, gate.floor={gate['floor']:g}"


def cost_table(rows: Sequence[Row]) -> Table | None:
    """What annotation cost, by annotate run; for the labels whole too, where earlier runs asked for a part of them."""
    wanted = [
        ("queries", "queries", 0, False),
        ("calls", "calls", 0, False),
        ("tokens_in", "tokens read", 0, False),
        ("tokens_out", "tokens written", 0, False),
        ("seconds", "seconds", 1, True),
        ("gpu_hours", "GPU-hours", 3, True),
        ("cost", "cost", 2, True),
        ("per_1000_queries.cost", "cost per 1,000 queries", 3, True),
        ("human_cost", "people's cost", 2, False),
    ]
    notes = []
    if any(row.first.ledger.get("calls_answered_by_store") for row in rows):
        wanted[7:7] = [("whole.gpu_hours", "GPU-hours, all calls", 3, True), ("whole.cost", "cost, all calls", 2, True)]
        notes = [
            "Calls, tokens, seconds, GPU-hours and cost: of what the run asked; all calls: with what the store had before."
        ]
    there = [w for w in wanted if any(row.values("ledger", "", w[0]) for row in rows)]
    columns = [Column("", heading, digits=digits, lower=True, ranked=ranked) for _, heading, digits, ranked in there]
    table = plain_table("cost", "Cost of the labels", rows, [("ledger", "", w[0]) for w in there], columns, {})
    if table is None:
        return None
    currencies = sorted({str(row.first.ledger["currency"]) for row in rows if row.first.ledger.get("currency")})
    return replace(table, notes=notes + [f"Costs in {' and '.join(currencies)}."] * bool(currencies))
