"""Retrieval measures, through ir_measures only."""

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from inspect import getfile
from operator import itemgetter
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import ir_measures

from uar.collections import Collection
from uar.collections.collection_runs import without_own
from uar.errors import UserError
from uar.storage.files import file_hash
from uar.storage.runs import Run

BINARY = {"RBP"}  # computed with `rel` alone, for which ir_measures has no default
OWN = re.compile(r"([A-Za-z_][\w.]*)\.([A-Za-z_]\w*)")  # MODULE.NAME, at the beginning of a name


def parsed(names: Sequence[str] | str) -> dict[str, Any]:
    """Measures by the names given, those of ir_measures or one's own as MODULE.NAME. UserError where one is unknown or cannot
    be computed, or none is given."""
    found: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names:
        own = OWN.match(name)
        try:
            found[name] = _own(name, own) if own else ir_measures.parse_measure(name)
        except (NameError, SyntaxError, ValueError) as error:
            raise UserError(
                f"measure {name!r} is not known; name it as ir_measures does, such as nDCG@10, AP(rel=2) or P(rel=2)@5, or "
                "one of your own as MODULE.NAME"
            ) from error
        twin = next((n for n, m in found.items() if m == found[name] and type(m) is not type(found[name])), None)
        if twin is not None:
            raise UserError(f"measure {name!r} calls itself {found[name]}, as {twin!r} does; give one of them another name")
        try:
            ir_measures.evaluator([_computed(found[name])], {})
        except (ValueError, AssertionError) as error:
            measure = found[name]
            graded = "rel" in measure.SUPPORTED_PARAMS and "rel" not in measure.params
            reason = " ".join(str(error).split())
            remedy = " It may need the grade that counts too, such as rel=1." if graded and "install" not in reason else ""
            raise UserError(f"measure {name!r}: {reason}{remedy}") from error
    if not found:
        raise UserError("measures is empty; name at least one as ir_measures does, such as nDCG@10")
    return found


def _own(name: str, place: re.Match[str]) -> Any:
    """A measure that ir_measures' `define` or `define_byquery` made and a module that can be imported holds."""
    module, attribute = place.groups()
    try:
        measure = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        file = f"{module.partition('.')[0]}.py"
        raise UserError(f"measure {name!r}: {error}; put {file} into the folder of the command") from error
    if not isinstance(measure, ir_measures.Measure):
        raise UserError(f"measure {name!r}: {attribute} is no measure; make it with ir_measures.define_byquery")
    known = ir_measures.measures.registry
    before = dict(known)
    known[attribute] = measure  # for this name alone: two modules may have a measure of one name
    try:
        return ir_measures.parse_measure(name[place.start(2) :])
    finally:
        known.clear()
        known.update(before)


def made_by(names: Sequence[str]) -> list[str]:
    """What computes the measures: the version of ir_measures, and the hashes of the files that hold one's own."""
    modules = dict.fromkeys(own[1] for name in names if (own := OWN.match(name)))
    return [version("ir-measures"), *(file_hash(Path(getfile(importlib.import_module(name)))) for name in modules)]


def deeper_than(collection: Collection, measures: Sequence[str], reach: int) -> dict[str, int]:
    """The measures that look at more results than `reach`, and at how many; no cut-off is deeper than the corpus."""
    most = len(collection.corpus) - collection.drop_own
    cutoffs = {name: min(m.params["cutoff"], most) for name, m in parsed(measures).items() if "cutoff" in m.params}
    return {name: cutoff for name, cutoff in cutoffs.items() if cutoff > reach}


def refuse_deeper(collection: Collection, measures: Sequence[str], reach: int, name: str, remedy: str) -> None:
    """UserError where `name`, which gives at most `reach` results a query, is too shallow for one of the measures."""
    deeper = deeper_than(collection, measures, reach)
    if deeper:
        raise UserError(
            f"measures={', '.join(deeper)} on {collection.reference}: {name} gives at most {reach} results a question; "
            f"{remedy}, or give measures that look at no more than {reach}"
        )


def per_query(
    collection: Collection, run: Run, measures: Sequence[str], query_ids: Iterable[str]
) -> list[tuple[str, str, float]]:
    """(query id, measure, value) for the judged ones of `query_ids`; a query without a result scores 0.

    A measure that names `rel` sees the grades as they stand; the other binary ones count from `positive_grade` up; those
    without a threshold, such as nDCG and ERR, take the collection's gains. The order of the run decides, not its scores, so
    that ties fall as everywhere: score descending, then passage id. Where the collection says so, a query's own document is
    no result.
    """
    judged = [q for q in query_ids if q in collection.qrels]
    run = without_own(collection, run)
    values = {(q, m): 0.0 for q in judged for m in measures}
    places = [float(-at) for at in range(max((len(run.get(q, ())) for q in judged), default=0))]
    passage = itemgetter(0)
    numbers = {str(at): q for at, q in enumerate(judged, start=1)}  # gdeval reads no other query ids than numbers
    for depth, sees, names in _groups(measures):
        first = places[:depth]
        grades = _grades(collection, sees)
        ranked = {n: dict(zip(map(passage, run[q]), first, strict=False)) for n, q in numbers.items() if run.get(q)}
        if ranked:
            qrels = {n: grades[q] for n, q in numbers.items()}
            for number, measure, value in _calculate(list(names), qrels, ranked):
                values.update({(numbers[number], name): value for name in names[measure]})
    return [(q, m, v) for (q, m), v in values.items()]


def _groups(measures: Sequence[str]) -> list[tuple[int | None, str, dict[Any, list[str]]]]:
    """(results a query that suffice, what is seen of judgements, names by measure) of measures that are computed together:
    runs are cut for those with a cutoff, since it is the length of the runs that takes time."""
    found: dict[tuple[str, bool], dict[Any, list[str]]] = {}
    for name, measure in parsed(measures).items():
        whole = "cutoff" not in measure.params or bool(measure.params.get("judged_only"))
        found.setdefault((_sees(measure), whole), {}).setdefault(_computed(measure), []).append(name)
    return [(None if whole else max(m.params["cutoff"] for m in names), sees, names) for (sees, whole), names in found.items()]


def _sees(measure: Any) -> str:
    threshold = measure.SUPPORTED_PARAMS.get("rel")
    if "rel" in measure.params:
        return "grades"
    if measure.NAME in BINARY:
        return "positives"
    return "gains" if threshold is None or not isinstance(threshold.default, int) else "positives"


def _computed(measure: Any) -> Any:
    """As it is asked for of what sees 1 for a positive and 0 for the others."""
    return measure(rel=1) if measure.NAME in BINARY and "rel" not in measure.params else measure


def _grades(collection: Collection, sees: str) -> Mapping[str, Mapping[str, int]]:
    if sees == "positives":
        return collection.binary()
    return collection.qrels if sees == "grades" else collection.gains()


def _calculate(
    measures: Sequence[Any], qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> Iterator[tuple[str, Any, float]]:
    """(query, measure, value)"""
    try:
        for found in ir_measures.iter_calc(list(measures), qrels, run):
            yield found.query_id, found.measure, float(found.value)
    except CalledProcessError as error:
        names = ", ".join(map(str, measures))
        raise UserError(
            f"measures {names}: gdeval cannot compute them; it needs grades of at most 4; leave them out"
        ) from error


def means(values: Iterable[tuple[str, str, float]]) -> dict[str, float]:
    """Mean a measure over the queries."""
    grouped: dict[str, list[float]] = {}
    for _, measure, value in values:
        grouped.setdefault(measure, []).append(value)
    return {m: sum(v) / len(v) for m, v in grouped.items()}
