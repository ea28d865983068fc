"""How consistent an annotator is, and whether it errs where it doubts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from uar.evaluation.validation.raters import Rated, Rater

BESIDE = ("name", "seed", "store", "limit", "shard", "resume", "against", "gate", "doubtful", "price", "logger", "hydra")
TENTHS = 10


def consistency(rated: Rated) -> list[dict[str, Any]]:
    """Of each annotator that was asked repeatedly: an ensemble of votes, or runs whose settings differ in their sample alone.
    The mean share of repeats that give the label of most of them (arXiv 2306.00176), and how often that label is people's,
    over the pairs on which all repeats agree and over the others, without those that they are divided evenly on."""
    rows = []
    for run in rated.runs:
        annotator = run.config.get("annotator", {})
        if str(annotator.get("_target_", "")).endswith(".Ensemble") and annotator.get("combine") == "votes":
            known = run.known & ~np.isnan(run.score)
            rows.append({"runs": [run.name], **_consistent(rated, run.score, known)})
    for repeats in _repeated(rated.runs):
        known = np.all([run.known for run in repeats], axis=0)
        share = np.mean([run.label for run in repeats], axis=0)
        rows.append({"runs": [run.name for run in repeats], **_consistent(rated, share, known)})
    return rows


def _consistent(rated: Rated, share: np.ndarray, known: np.ndarray) -> dict[str, Any]:
    """`share`: (pairs,) of repeats whose label is 1."""
    agreeing = np.maximum(share, 1 - share)
    right = (share > 0.5) == (rated.majority.label == 1)
    compared = known & rated.majority.known & (share != 0.5)
    whole = compared & (agreeing == 1)
    return {
        "pairs": int(known.sum()),
        "consistency": _mean(agreeing[known]),
        "accuracy where all agree": _mean(right[whole]),
        "accuracy elsewhere": _mean(right[compared & ~whole]),
    }


def _repeated(runs: Sequence[Rater]) -> list[list[Rater]]:
    """Runs by settings, one a sample, that of the most pairs: what the store answers again is no repeat."""
    groups: dict[str, dict[str, Rater]] = {}
    for run in sorted(runs, key=lambda run: -int(run.known.sum())):
        if run.config:
            groups.setdefault(_settings(run.config), {}).setdefault(_settings(run.config, sample=True), run)
    chosen = [{run.name for run in group.values()} for group in groups.values() if len(group) > 1]
    return [[run for run in runs if run.name in names] for names in chosen]


def _settings(config: Mapping[str, Any], sample: bool = False) -> str:
    kept: dict[str, Any] = {key: value for key, value in config.items() if key not in BESIDE}
    annotator = config.get("annotator")
    return json.dumps({**kept, "annotator": annotator if sample else _without_sample(annotator)}, sort_keys=True, default=str)


def _without_sample(options: Any) -> Any:
    return {k: _without_sample(v) for k, v in options.items() if k != "sample"} if isinstance(options, dict) else options


def errors_by_doubt(rated: Rated, run: Rater) -> dict[str, Any] | None:
    """Share of labels that are not people's by tenth of the run's doubt, from the surest tenth up, and Spearman's correlation
    of the two over pairs. None where the run notes no doubt, or all of it is the same."""
    which = run.known & rated.majority.known & ~np.isnan(run.doubt)
    doubt, wrong = run.doubt[which], (run.label != rated.majority.label)[which]
    if len(doubt) < TENTHS or (doubt == doubt[0]).all():
        return None
    order = np.argsort(doubt, kind="stable")
    parts = np.array_split(order, TENTHS)
    varied = 0 < wrong.sum() < len(wrong)
    return {
        "tenths": [{"doubt": _mean(doubt[part]), "errors": _mean(wrong[part]), "pairs": len(part)} for part in parts],
        "spearman": float(spearmanr(doubt, wrong).statistic) if varied else None,
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
