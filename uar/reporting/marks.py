"""Significance marks: each row against the baseline, from values a query."""

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from uar.evaluation import significance
from uar.evaluation.score_files import Values
from uar.reporting.alike import unlike
from uar.reporting.judge_columns import made_otherwise
from uar.reporting.rows import Row

Marks = Mapping[tuple[str, str], Mapping[str, Any]]  # (slug, measure) -> what `significance.compare` tells


def marks(row: Row, baseline: Row, measures: Collection[str], notes: list[str]) -> Marks:
    """Paired tests of a row against the baseline, corrected over collections (Holm); a collection of which one of them keeps
    no values a query, with no query in common, or that they were not measured alike on, is left out; so is a measure of
    answers that was judged or computed otherwise."""
    ours, theirs = {}, {}
    for slug in row.slugs:
        differs = unlike([row, baseline], slug)
        if differs:
            notes.append(
                f"{slug}: {row.name} is not compared with {baseline.name}, as they were not measured alike: {differs}"
            )
            continue
        alike = [m for m in measures if (slug, m) not in made_otherwise([row, baseline], slug)]
        mine, other = (_of_measures(r.scores(slug, notes), alike) for r in (row, baseline))
        if any(by_query.keys() & other.get(measure, {}).keys() for measure, by_query in mine.items()):
            ours[slug], theirs[slug] = mine, other
    with _quiet():  # queries that one of them lacks become notes
        found = significance.compare(ours, theirs) if ours else {}
    for slug, values in found.items():
        left_out = next((v["left_out"] for v in values.values() if any(v["left_out"].values())), None)
        if left_out:
            lost = f"{left_out['ours']} queries that only the first has and {left_out['baseline']} that only the second has"
            notes.append(f"{slug}: {row.name} is compared with {baseline.name} without {lost}")
    return {(slug, measure): mark for slug, values in found.items() for measure, mark in values.items()}


def _of_measures(values: Values, measures: Collection[str]) -> Values:
    return {measure: by_query for measure, by_query in values.items() if measure in measures}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = significance.log.level
    significance.log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        significance.log.setLevel(before)


def meaning(baseline: str) -> str:
    """What + and − beside a value say."""
    return (
        f"Marks + and −: better and worse than {baseline}; two-sided paired t-test over questions, of the means of seeds, p < "
        f"{significance.LEVEL} after Holm's correction over collections."
    )


def described(mark: Mapping[str, Any], baseline: str) -> str:
    """The comparison of one value in words."""
    between = "" if mark["low"] is None else f" [{mark['low']:+.4f}, {mark['high']:+.4f}]"
    tested = f"{mark['queries']} queries, p {_number(mark)} (t-test, Holm)"
    return f"{mark['difference']:+.4f}{between} against {baseline}, {tested}"


def sureness(mark: Mapping[str, Any]) -> str:
    """The difference of the means, and whether it may be chance."""
    sure = "" if mark["mark"] else ", which may be chance"
    difference = f"{mark['difference']:+.3f}".replace("-", "−")
    return f"{difference} in the mean of {mark['queries']} questions (p {_number(mark)}{sure})"


def _number(mark: Mapping[str, Any]) -> str:
    p = mark["p t-test (Holm)"]
    return "not defined" if p is None else f"{p:.2g}"
