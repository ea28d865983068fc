"""Estimates of the runs of a hybrid test, and how far the LLM orders them as people do."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from uar.collections import Collection
from uar.errors import UserError
from uar.evaluation.estimates import FEWEST, Estimating, llm_grades, log_estimates, rank_agreement, values_by_llm
from uar.storage.files import write_json
from uar.storage.labelled_pairs import Labels
from uar.storage.runs import Run

log = logging.getLogger(__name__)
NAME = "estimates.json"


def estimate_runs(
    folder: Path,
    collection: Collection,
    labels: Labels,
    runs: Mapping[str, Run],
    measures: Sequence[str],
    estimating: Estimating,
) -> dict[str, Any] | None:
    """Write `estimates.json`: by run and measure what `Estimating.estimates` says; `kendall_tau` by measure, of the order of
    the runs by the LLM, and by the estimates, with that by people, on the questions that people judged; of single
    passages on all questions. None where nobody judged enough to estimate from, which is logged.

    `labels`: the LLM's. Their pools are those of the runs, people's may be others: what only one of both judged counts as not
    relevant to the other, which the estimate takes care of.
    """
    llm = llm_grades(collection, labels)
    judged = [q for q in llm if q in collection.qrels]
    human = estimating.of_passages(judged)
    if len(human) < FEWEST:
        line = "No estimates: people judged %d of the %d questions that the LLM judged, and at least %d are needed"
        log.info(line, len(human), len(llm), FEWEST)
        return None
    found: dict[str, dict[str, Any]] = {}
    means: dict[str, list[dict[str, float]]] = {"people": [], "llm": [], "estimate": []}
    for name, run in runs.items():
        try:
            found[name] = estimating.of_run(collection, run, measures, human, llm)
        except UserError as error:  # what was paid for stays
            log.warning("No estimates of %s: %s", name, error)
            continue
        for who, value in (("people", "people"), ("estimate", "value")):
            means[who].append({m: of[value] for m, of in found[name].items()})
        if estimating.unit == "question":
            predicted = values_by_llm(collection, run, list(found[name]), human, llm)
            means["llm"].append({m: fmean(of.values()) for m, of in predicted.items()})
        else:
            means["llm"].append({m: of["llm"] for m, of in found[name].items()})
        if len(human) < len(llm) or estimating.unit == "passage":
            log_estimates(f"{name}, {estimating.title(len(human), len(llm))}", found[name])
    if not found:
        return None
    measures = list(means["people"][0])
    taus = {
        who: {m: rank_agreement([v[m] for v in means["people"]], [v[m] for v in means[who]]) for m in measures}
        for who in ("llm", "estimate")
    }
    if len(found) > 1:
        told = ", ".join(f"{m} {tau:.2f}" for m, tau in taus["llm"].items() if tau is not None) or "not defined"
        log.info("Kendall's tau of the order of %d runs by people and by the LLM: %s", len(found), told)
    result = {"level": estimating.level, "questions_by_people": human, "runs": found, "kendall_tau": taus}
    write_json(folder / NAME, result)
    return result
