"""People and annotators as raters of the same pairs of question and passage: their labels as columns beside each other."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uar.annotation.quality.pairs import Pairs
from uar.errors import DataError, UserError
from uar.storage.label_files import NAME, read_label_columns, tell_assisted
from uar.storage.labelled_pairs import one_stage, read_labels

log = logging.getLogger(__name__)
KEYS = ["query_id", "doc_id"]
COLUMNS = (*KEYS, "label", "grade", "score", "uncertainty")
UNKNOWN = -1  # in columns of labels


@dataclass(frozen=True)
class Rater:
    """Columns of (pairs,): `label` 0/1, `UNKNOWN` where it did not judge; `grade`; `score` and `doubt`, NaN where it has none.
    `config`: of an annotate run."""

    name: str
    label: np.ndarray
    grade: np.ndarray
    score: np.ndarray
    doubt: np.ndarray
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> np.ndarray:
        return self.label >= 0

    @property
    def scale(self) -> tuple[int, int]:
        """The lowest and the highest grade, as seen."""
        grades = self.grade[self.known]
        return (int(grades.min()), int(grades.max())) if len(grades) else (0, 0)


@dataclass(frozen=True)
class Rated:
    """`query`: (pairs,) places in `query_ids`. `people`, `runs`: raters of these pairs. `majority`: of people, where more gave
    one label than the other."""

    query_ids: list[str]
    query: np.ndarray
    people: list[Rater]
    runs: list[Rater]
    majority: Rater

    def pairs(self, rater: Rater, reference: Rater) -> Pairs:
        """Those that both judged."""
        both = rater.known & reference.known
        places, query = np.unique(self.query[both], return_inverse=True)
        number = int(both.sum())
        return Pairs(
            query_ids=[self.query_ids[at] for at in places],
            query=query,
            label=rater.label[both].astype(np.int64),
            grade=rater.grade[both].astype(np.int64),
            rank=np.ones(number, np.int64),
            score=rater.score[both],
            known=np.ones(number, bool),
            other_label=reference.label[both].astype(np.int64),
            other_grade=reference.grade[both].astype(np.int64),
        )

    def by_question(self, values: np.ndarray, which: np.ndarray) -> np.ndarray:
        """(queries,) means of values of (pairs,) over the pairs that `which` marks, NaN of a question without one."""
        number = len(self.query_ids)
        counts = np.bincount(self.query[which], minlength=number)
        sums = np.bincount(self.query[which], values[which], minlength=number)
        return np.divide(sums, counts, out=np.full(number, np.nan), where=counts > 0)


def read_raters(
    people: Mapping[str, Path],
    runs: Mapping[str, Path],
    positive_grade: int,
    unjudged: str,
    configs: Mapping[str, Mapping[str, Any]],
) -> Rated:
    """Labels by names. A file of grades alone is positive from `positive_grade` up. `unjudged`: what people say of passages of
    the runs that they did not judge, of questions of which they judged some: `ignore` or `negative`. UserError where a run has
    no question, or no passage, in common with people, or people have no pair in common."""
    if unjudged not in ("ignore", "negative"):
        raise UserError(f"unjudged={unjudged}; allowed: ignore, negative")
    theirs = {name: _read(path, positive_grade) for name, path in people.items()}
    judged = set().union(*(table["query_id"].unique().to_pylist() for table in theirs.values()))
    ours = {name: _of_judged(name, _read(path, positive_grade, judged), judged) for name, path in runs.items()}
    if unjudged == "negative":
        every = pa.concat_tables([table.select(KEYS) for table in ours.values()]).group_by(KEYS).aggregate([])
        theirs = {name: _with_negatives(table, every) for name, table in theirs.items()}
    index = pa.concat_tables([table.select(KEYS) for table in theirs.values()]).group_by(KEYS).aggregate([]).sort_by(
        [(key, "ascending") for key in KEYS]
    )  # fmt: skip
    query_ids, query = np.unique(index["query_id"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    index = index.append_column("row", pa.array(np.arange(len(index))))
    raters = [_rater(name, table, index, configs.get(name, {})) for name, table in {**theirs, **ours}.items()]
    rated = Rated(query_ids.tolist(), query, raters[: len(theirs)], raters[len(theirs) :], _majority(raters[: len(theirs)]))
    _check_common(rated)
    return rated


def _read(path: Path, positive_grade: int, query_ids: set[str] | None = None) -> pa.Table:
    """`COLUMNS`, of some questions or of all. A run's labels stay columns; files are read and checked line by line."""
    if path.is_dir():
        table = read_label_columns(path / NAME, COLUMNS, query_ids) if (path / NAME).is_file() else None
        if table is None:
            raise DataError(path, f"a folder without {NAME}; give the folder of an annotate run, or a file of labels")
        one_stage(path / NAME)
        tell_assisted(path / NAME)
        pairs = table.group_by(KEYS).aggregate([]).num_rows
        if pairs < table.num_rows or table["label"].null_count:
            twice, without = table.num_rows - pairs, table["label"].null_count
            raise DataError(path / NAME, f"{twice} pairs stand twice and {without} have no label; give an annotate run")
        grades = pc.coalesce(table["grade"], table["label"].cast(pa.int32()))  # a train run writes labels alone
        table = table.set_column(table.schema.get_field_index("grade"), "grade", grades)
    else:
        if not path.is_file():
            raise DataError(
                path, "no such file; give a file of labels (TREC qrels, TSV, Parquet) or the folder of an annotate run"
            )
        rows = [(q, d, given) for q, of_query in read_labels(path).items() for d, given in of_query.items()]
        if any(given.grade is None for _, _, given in rows):
            raise DataError(path, "scores or ranks alone; labels or grades are needed")
        graded = max((given.grade or 0 for _, _, given in rows if given.label is None), default=None)
        if graded is not None and max(graded, positive_grade) > 1:
            log.info("%s: it holds grades; %d and above are positive (positive_grade)", path, positive_grade)
        columns: dict[str, list[Any]] = {
            "query_id": [q for q, _, _ in rows],
            "doc_id": [d for _, d, _ in rows],
            "label": [int((x.grade or 0) >= positive_grade) if x.label is None else x.label for _, _, x in rows],
            "grade": [x.grade for _, _, x in rows],
            "score": [x.score for _, _, x in rows],
            "uncertainty": [None for _ in rows],
        }
        table = pa.table(columns)
    types = {"query_id": pa.string(), "doc_id": pa.string(), "label": pa.int8(), "grade": pa.int32()}
    return pa.table({name: table[name].cast(types.get(name, pa.float64())) for name in COLUMNS})


def _of_judged(name: str, table: pa.Table, judged: set[str]) -> pa.Table:
    kept = table.filter(pc.is_in(table["query_id"], pa.array(sorted(judged))))
    if not kept.num_rows:
        other = f", such as {table['query_id'][0].as_py()!r}," if table.num_rows else ""
        raise UserError(
            f"{name}: none of its questions{other} is among the {len(judged)} that people judged, such as {min(judged)!r}; "
            "give labels of the same collection"
        )
    if (there := len(kept["query_id"].unique())) < len(judged):
        log.info("%s: it has %d of the %d questions that people judged", name, there, len(judged))
    return kept


def _with_negatives(table: pa.Table, every: pa.Table) -> pa.Table:
    rest = every.join(table.select(KEYS), KEYS, join_type="left anti")
    rest = rest.filter(pc.is_in(rest["query_id"], table["query_id"].unique()))
    zeros = {"label": pa.array(np.zeros(len(rest), np.int8)), "grade": pa.array(np.zeros(len(rest), np.int32))}
    empty = pa.nulls(len(rest), pa.float64())
    return pa.concat_tables(
        [table, pa.table({name: rest[name] if name in KEYS else zeros.get(name, empty) for name in COLUMNS})]
    )


def _rater(name: str, table: pa.Table, index: pa.Table, config: Mapping[str, Any]) -> Rater:
    joined = table.join(index, KEYS, join_type="inner")
    rows = joined["row"].to_numpy()
    columns = []
    for column, empty in (("label", UNKNOWN), ("grade", 0), ("score", np.nan), ("uncertainty", np.nan)):
        values = np.full(len(index), empty, np.float64)
        values[rows] = joined[column].to_numpy(zero_copy_only=False)
        columns.append(values)
    if outside := len(table) - len(joined):
        log.info("%s: %d of its %d labels are of passages that nobody judged, and count nowhere", name, outside, len(table))
    label, grade, score, doubt = columns
    return Rater(name, label.astype(np.int8), np.nan_to_num(grade).astype(np.int32), score, doubt, config)


def _majority(people: Sequence[Rater]) -> Rater:
    if len(people) == 1:
        return people[0]
    yes, no = (sum((rater.label == label).astype(int) for rater in people) for label in (1, 0))
    label = np.where(yes == no, UNKNOWN, yes > no).astype(np.int8)
    if ties := int(((yes == no) & (yes > 0)).sum()):
        log.info("%d pairs on which people are divided evenly have no label to compare with", ties)
    grades = np.ma.array([rater.grade for rater in people], mask=[~rater.known for rater in people])
    median = np.ma.median(grades, axis=0).filled(0)
    nothing = np.full(len(label), np.nan)
    return Rater("people", label, np.floor(median + 0.5).astype(np.int32), nothing, nothing)


def _check_common(rated: Rated) -> None:
    for run in rated.runs:
        if not (run.known & rated.majority.known).any():
            raise UserError(f"{run.name}: no passage of it has a label by people; give judgements of the passages it labelled")
    for one in rated.people:
        others = [other for other in rated.people if other is not one]
        if others and not any((one.known & other.known).any() for other in others):
            raise UserError(f"{one.name}: no passage of it was judged by others too; give overlapping labels, or it alone")
