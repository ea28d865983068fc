"""How two annotators agree, where people judged little or nothing."""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from uar.annotation.judged_blocks import blocks_of
from uar.annotation.judgement import Judged
from uar.annotation.quality.bootstrap import estimates
from uar.annotation.quality.kappa import cohen_kappa, comparable, label_rate, prevalence, ratio, weighted_kappa
from uar.annotation.quality.pairs import Counts, Pairs, shared_pairs


def compare(judged: Judged, reference: Judged, resamples: int = 1_000, seed: int = 0) -> dict[str, Any] | None:
    """Agreement over the pairs that both annotators judged; None where there is none.

    The keys: `queries`, `pairs`; `equal_labels`, the share of pairs; `precision` and `recall` of the labels, those of the
    reference taken as true; `prevalence` and `label_rate`, the shares that are positive for the reference and for the
    annotator; `kappa` (Cohen's, of labels), `weighted_kappa` (quadratic weights, of grades; null where the two
    scales, as seen, differ in range or have only two grades); `intervals` and `confusion` (`rows` the reference's grades) as
    in `agreement`. What is undefined is null: precision where nothing is chosen, recall and both kappas where the reference
    gives one label alone.
    """
    pairs = shared_pairs(judged, reference)
    if not pairs.query_ids:
        return None
    return compare_pairs(pairs, comparable(_scale(judged), _scale(reference)), resamples, seed)


def compare_pairs(pairs: Pairs, graded: bool, resamples: int = 1_000, seed: int = 0) -> dict[str, Any]:
    """The same of pairs that both sides know. `graded`: whether grades of the two can be set against each other."""

    def measure(sums: Counts) -> Counts:
        kappa = cohen_kappa(sums)
        total = sums["tp"] + sums["fp"] + sums["fn"] + sums["tn"]
        return {
            "equal_labels": ratio(sums["tp"] + sums["tn"], total),
            "precision": ratio(sums["tp"], sums["tp"] + sums["fp"]),
            "recall": ratio(sums["tp"], sums["tp"] + sums["fn"]),
            "kappa": kappa,
            "prevalence": prevalence(sums),
            "label_rate": label_rate(sums),
            "weighted_kappa": np.where(np.isnan(kappa) | (not graded), np.nan, weighted_kappa(sums)),
        }

    return {
        "queries": len(pairs.query_ids),
        "pairs": int(pairs.known.sum()),
        **estimates(pairs.known_counts(), measure, resamples, seed),
        "confusion": pairs.confusion(),
    }


def _scale(judged: Judged) -> tuple[int, int]:
    ends = [pc.min_max(block.columns["grade"]).as_py() for block in blocks_of(judged) if block.sizes.any()]
    return min(end["min"] for end in ends), max(end["max"] for end in ends)
