"""How an annotator's labels agree with people's judgements: the content of agreement.json."""

from typing import Any

import numpy as np

from uar.annotation.judgement import Judged
from uar.annotation.quality.bootstrap import estimates
from uar.annotation.quality.kappa import cohen_kappa, comparable, label_rate, prevalence, ratio, weighted_kappa
from uar.annotation.quality.pairs import Counts, Pairs, human_pairs
from uar.collections import Collection


def agreement(
    collection: Collection,
    judged: Judged,
    grades: tuple[int, int] | None = None,
    resamples: int = 1_000,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Agreement over the queries that both people and the annotator judged; None where there is none.

    A passage is positive for people from `collection.positive_grade` up, for the annotator by its label. `grades`: lowest
    and highest grade that the annotator may give; by default as seen in `judged`. The keys:

    - `queries`; `precision`, `recall`: micro-averaged over the pairs of the pools, as in Table 1 of arXiv 2504.05220: a
      passage that nobody judged is not positive. 0 where nothing is chosen, or no human positive stands in a pool.
    - `average_positives`: the annotator's, a query. `human_positive_ranked_first`: share of queries.
    - `judged_pairs`: pairs that people judged. Over these alone: `judged_precision` (recall is the same as above, since
      every human positive is judged), `kappa` (Cohen's, of labels) and `weighted_kappa` (quadratic weights, of grades). null
      where people gave one of the two labels alone, as in qrels of nothing but positives; `weighted_kappa` also where the
      two scales differ in range or have only two grades (people's scale is that of all qrels of the collection). Beside them
      `prevalence` and `label_rate`: the shares that are positive for people and for the annotator, without which a kappa
      cannot be compared with another one.
    - `auroc`: the chance that a positive of people has a higher score than another passage that they judged, of any query;
      null where a score is missing, or people gave one label alone.
    - `intervals`: 95 % [low, high] by name, by bootstrap over queries; absent where the value is null.
    - `histogram`: number of queries by number of positives that the annotator gave.
    - `confusion`: judged pairs by grade; `rows` people's grades, `columns` the annotator's, as seen.
    - `by_rank`: for each rank that the annotator gave, `passages` of it and the share of `human_positives` among them.
    """
    pairs = human_pairs(collection, judged)
    if not pairs.query_ids:
        return None
    counts = _counts(pairs)
    people = [grade for of_query in collection.qrels.values() for grade in of_query.values()]
    own = grades or (int(pairs.grade.min()), int(pairs.grade.max()))
    graded = comparable(own, (min(people), max(people)))

    def measure(sums: Counts) -> Counts:
        return _measures(sums, graded)

    return {
        "queries": len(pairs.query_ids),
        "judged_pairs": int(pairs.known.sum()),
        "auroc": _auroc(pairs),
        **estimates(counts, measure, resamples, seed),
        "histogram": _histogram(counts["chosen"]),
        "confusion": pairs.confusion(),
        "by_rank": _by_rank(pairs),
    }


def table_of(found: dict[str, Any]) -> list[list[str]]:
    """Name, value and 95 % interval of each measure."""
    bounds = {name: "{:.3f} to {:.3f}".format(*bound) for name, bound in found["intervals"].items()}
    values = {name: value for name, value in found.items() if isinstance(value, float)}
    return [[name.replace("_", " "), f"{value:.3f}", bounds.get(name, "–")] for name, value in values.items()]


def _counts(pairs: Pairs) -> Counts:
    return {
        "queries": np.ones(len(pairs.query_ids)),
        "chosen": pairs.per_query(pairs.label),
        "first": pairs.other_label[pairs.best_ranked()],
        **pairs.known_counts(),
    }


def _measures(sums: Counts, graded: bool) -> Counts:
    negatives = sums["fp"] + sums["tn"]
    judged_precision = np.nan_to_num(ratio(sums["tp"], sums["tp"] + sums["fp"]))
    kappa = cohen_kappa(sums)
    return {
        "precision": np.nan_to_num(ratio(sums["tp"], sums["chosen"])),
        "recall": np.nan_to_num(ratio(sums["tp"], sums["tp"] + sums["fn"])),
        "average_positives": ratio(sums["chosen"], sums["queries"]),
        "human_positive_ranked_first": ratio(sums["first"], sums["queries"]),
        "judged_precision": np.where(negatives > 0, judged_precision, np.nan),
        "kappa": kappa,
        "prevalence": np.where(negatives > 0, prevalence(sums), np.nan),
        "label_rate": np.where(negatives > 0, label_rate(sums), np.nan),
        "weighted_kappa": np.where(np.isnan(kappa) | (not graded), np.nan, weighted_kappa(sums)),
    }


def _auroc(pairs: Pairs) -> float | None:
    from scipy.stats import rankdata  # slow to import, and commands import this file when they start

    human, score = pairs.other_label[pairs.known] > 0, pairs.score[pairs.known]
    positives, others = int(human.sum()), int((~human).sum())
    if not positives or not others or np.isnan(score).any():
        return None
    above = rankdata(score)[human].sum() - positives * (positives + 1) / 2  # pairs of a positive and another, ties by half
    return float(above / (positives * others))


def _histogram(chosen: np.ndarray) -> dict[str, int]:
    numbers, queries = np.unique(chosen.astype(int), return_counts=True)
    return dict(zip(map(str, numbers.tolist()), queries.tolist(), strict=True))


def _by_rank(pairs: Pairs) -> list[dict[str, Any]]:
    passages, positives = np.bincount(pairs.rank), np.bincount(pairs.rank, pairs.other_label)
    return [
        {"rank": int(rank), "passages": int(passages[rank]), "human_positives": float(positives[rank] / passages[rank])}
        for rank in np.flatnonzero(passages)
    ]
