"""What labels cost, and what they brought."""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from uar.errors import UserError
from uar.reporting.figures.measure import interval, shown_measure
from uar.reporting.figures.missing import Missing
from uar.reporting.figures.style import FADED, MARKERS, SERIES, capped, legend, need, new, wrapped
from uar.reporting.rows import Row
from uar.reporting.run_folders import unreadable
from uar.storage.label_files import BY_PEOPLE, NAME, read_label_columns

JUDGEMENT, CURRENCY = 0.09, "USD"  # a pair judged by a person, as in arXiv 2504.05220, where no run says otherwise
OF_PARTS = re.compile(  # of an ensemble or a cascade, and what else changes the calls of an annotator
    r"annotator\.((first|then|member)\.(_target_|template)|above|doubt|templates|guideline)|llms\.\w+\.model"
)
BY_LLM = ("LLMLabels", "MixedLabels", "QAMetricLabels", "ClickLLMLabels")


def cost_and_quality(rows: Sequence[Row], notes: list[str], pareto: bool = True) -> tuple[Figure, str]:
    """A point a trained row: the price of its labels, people's by the pair of the questions that they labelled, the LLM's from
    the ledgers of the annotate runs of its annotations, or of the one with the same annotator, models and collection.
    `pareto`: rows that another one beats are grey, and a line joins the others."""
    shown = shown_measure([row for row in rows if row.config.get("label_source._target_")])
    if shown is None:
        raise Missing("no trained run with retrieval scores")
    slug, measure = shown
    judgement, currency = _people(rows)
    ledgers = _ledgers(rows)
    others = sorted({str(ledger["currency"]) for ledger in ledgers.values() if ledger.get("currency", currency) != currency})
    if others:
        notes.append(f"cost against quality: in {currency}; annotate runs with prices in {', '.join(others)} are left out")
    ledgers = {key: ledger for key, ledger in ledgers.items() if ledger.get("currency", currency) == currency}
    points = {}
    for row in rows:
        values = row.values("retrieval", slug, measure)
        price = _price(row, ledgers, judgement, notes)
        if values and price is not None:
            points[row.name] = (price, fmean(values), row)
    prices = {price for price, _, _ in points.values()}
    need(len(prices) > 1, "needs trained runs whose labels have two known prices; add annotate runs to runs=, give price.*")
    figure, axes = new()
    best = front({name: (price, value) for name, (price, value, _) in points.items()}) if pareto else list(points)
    by_front = sorted(points, key=lambda name: name not in best)  # so that none of the front is left out
    drawn = set(capped(by_front, "cost against quality", notes))
    for at, name in enumerate(name for name in points if name in drawn):
        price, value, row = points[name]
        bound = interval(row, slug, measure, notes)
        error = [[value - bound[0]], [bound[1] - value]] if bound else None
        colour = SERIES[at] if name in best else FADED
        look: Any = {"fmt": MARKERS[at], "color": colour, "markersize": 5, "elinewidth": 1, "label": wrapped(name)}
        axes.errorbar(price, value, yerr=error, **look)
    if pareto:
        axes.plot(*zip(*(points[name][:2] for name in best), strict=True), color=FADED, linewidth=1, zorder=1)
    if max(prices) > 100 * max(min(prices), 0.01):
        axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel=f"Cost of the labels, {currency}", ylabel=f"{measure}, {slug}", xlim=(0, None))
    legend(axes, figure)
    return figure, (
        f"{measure} on {slug} with 95 % intervals over questions. People are taken to judge the whole pool of a question, for "
        f"{judgement:g} {currency} a pair.{_on_front(best) if pareto else ''}"
    )


def _on_front(best: Sequence[str]) -> str:
    return f" Grey: another row costs no more and scores no less. Not so, from the cheapest up: {'; '.join(best)}."


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names whose (cost, quality) no other beats, the cheapest first: one that costs no more and is no worse, and cheaper or
    better (Pareto)."""

    def beaten(cost: float, quality: float) -> bool:
        return any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points.values())

    return sorted((name for name, point in points.items() if not beaten(*point)), key=lambda name: points[name])


def _people(rows: Sequence[Row]) -> tuple[float, str]:
    """Price of a pair that a person judged, and its currency, of the first run that says."""
    configs = (row.config for row in rows if isinstance(row.config.get("price.human_judgement"), int | float))
    config = next(configs, {})
    return float(config.get("price.human_judgement", JUDGEMENT)), str(config.get("price.currency", CURRENCY))


def _annotator(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes two annotations the same; its LLM is asked about other questions at the same price."""
    keys = ("annotator._target_", "annotator.template", "annotator.target", "llm.model", "dataset.train", "dataset.path")
    parts = sorted((key, str(value)) for key, value in config.items() if OF_PARTS.fullmatch(key) and value is not None)
    return (*(str(config.get(key)) for key in keys), *(text for part in parts for text in part))


def _ledgers(rows: Sequence[Row]) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Those of annotate runs, by their annotation and by what makes two the same."""
    found: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for run in (run for row in rows for run in reversed(row.folders) if run.ledger.get("queries")):
        found[_annotator(run.config)] = found[(str(run.manifest.get("annotation")),)] = run.ledger
    return found


def _price(row: Row, ledgers: Mapping[tuple[str, ...], Mapping[str, Any]], judgement: float, notes: list[str]) -> float | None:
    path = row.first.path / NAME
    source = str(row.config.get("label_source._target_", "")).rpartition(".")[2]
    if not path.is_file() or not source:
        return None
    try:
        table = read_label_columns(path, ("query_id", "doc_id", "source", "stage"))
    except UserError as error:
        notes.append(unreadable(row.name, NAME, error))
        return None
    people = _judged_by_people(table, row.first.fitted_on) * judgement
    if source not in BY_LLM:
        return people
    keys = [facts["key"] for facts in row.first.manifest.get("annotations") or () if "key" in facts]
    asked = [ledgers.get((key,)) for key in keys]
    if len(keys) < 2 and not any(asked):
        asked = [ledgers.get(_annotator(row.config))]
    costs: list[Any] = [((ledger or {}).get("per_1000_queries") or {}).get("cost") for ledger in asked]
    if None in costs:
        why = "its annotate run is not among the runs" if None in asked else "its annotate run has no price (price.*)"
        notes.append(f"cost against quality: {row.name} is left out, {why}")
        return None
    queries = len(pc.unique(table.filter(pc.not_equal(table["source"], "human"))["query_id"]))
    return people + sum(map(float, costs)) * queries / 1_000


def _judged_by_people(table: pa.Table, fitted_on: Sequence[str] = ()) -> int:
    """Pairs of the pools in which, in a stage, a person chose: a passage that person and LLM chose is `human+llm`, one that
    neither did is the LLM's; and of the questions `fitted_on`."""
    found = [table.filter(pc.is_in(table["query_id"], pa.array(fitted_on, pa.string())))]
    for stage in pc.unique(table["stage"]):
        of_stage = table.filter(pc.equal(table["stage"], stage))
        chosen = of_stage.filter(pc.match_substring_regex(of_stage["source"], BY_PEOPLE))
        found.append(of_stage.filter(pc.is_in(of_stage["query_id"], pc.unique(chosen["query_id"]))))
    pairs = pa.concat_tables(found).select(["query_id", "doc_id"])
    return int(pairs.group_by(["query_id", "doc_id"]).aggregate([]).num_rows)
