"""Gold answers that count."""

from uar.collections import Collection
from uar.evaluation.rag.marco import NO_ANSWER


def gold_answers(collection: Collection, query_id: str) -> tuple[str, ...]:
    """Those of a question that are not blank; none where MS MARCO's note says that there is none."""
    answers = collection.queries[query_id].answers
    return () if NO_ANSWER in answers else tuple(a for a in answers if a.strip())
