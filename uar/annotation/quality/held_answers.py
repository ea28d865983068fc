"""Where people and an annotator differ, who chose passages that answer? Counted by gold answers that stand in the passages."""

from collections.abc import Sequence
from typing import Any

from uar.annotation.judgement import Judged
from uar.collections import Collection
from uar.collections.answer_match import hold_answer
from uar.storage.ordering import rank_of

MOST = 2_000  # questions
GROUPS = {(1, 1): "both", (1, 0): "people_alone", (0, 1): "annotator_alone", (0, 0): "neither"}


def held_answers(collection: Collection, judged: Judged, seed: int = 0) -> dict[str, Any] | None:
    """`questions`: those that have gold answers, at most `MOST`, drawn by the seed. Of their judged passages, by who called
    them positive (`both`, `people_alone`, `annotator_alone`, `neither`): `passages`, and the share that `hold_an_answer`.
    Those of the last two that do are likely positives that people did not name: people's labels have them as negatives.
    None where no question has a gold answer.
    """
    asked = sorted(collection.answered(judged), key=lambda q: rank_of(seed, "answers", q))[:MOST]
    counts = {group: [0, 0] for group in GROUPS.values()}
    for query_id in asked:
        gold, people = collection.queries[query_id].answers, set(collection.positives(query_id))
        texts = _texts(collection, [j.doc_id for j in judged[query_id]])
        for judgement, holds in zip(judged[query_id], hold_answer(texts, gold), strict=True):
            group = counts[GROUPS[int(judgement.doc_id in people), judgement.label]]
            group[0] += 1
            group[1] += holds
    shares = {
        name: {"passages": passages, "hold_an_answer": held / passages if passages else None}
        for name, (passages, held) in counts.items()
    }
    return {"questions": len(asked), **shares} if asked else None


def _texts(collection: Collection, doc_ids: Sequence[str]) -> list[str]:
    return [collection.corpus.text(row) for row in collection.corpus.rows(doc_ids)]
