"""How an annotator's positives agree with people's judgements."""

from collections.abc import Mapping, Sequence
from typing import Any

from uar.annotation.stages import Judgement
from uar.collections import Collection


def agreement(collection: Collection, judged: Mapping[str, Sequence[Judgement]]) -> dict[str, Any] | None:
    """Precision and recall of the human positives that stand in the pools, micro-averaged over (query, passage) pairs, as in
    the paper's Table 1; and how often the best-ranked passage is one. None where no judged query has judgements."""
    chosen = hit = positives = first = queries = 0
    for query_id, judgements in judged.items():
        human = set(collection.positives(query_id)) & {j.doc_id for j in judgements}
        if query_id not in collection.qrels or not judgements:
            continue
        queries += 1
        labelled = {j.doc_id for j in judgements if j.label}
        chosen += len(labelled)
        positives += len(human)
        hit += len(labelled & human)
        first += min(judgements, key=lambda j: j.rank).doc_id in human
    if not queries:
        return None
    return {
        "queries": queries,
        "precision": hit / chosen if chosen else 0.0,
        "recall": hit / positives if positives else 0.0,
        "average_positives": chosen / queries,
        "human_positive_ranked_first": first / queries,
    }
