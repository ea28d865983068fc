"""Questions of a split that training sees: what is scored on them says nothing of new ones."""

import logging
from collections.abc import Iterable, Sequence

from uar.collections import Collection
from uar.evaluation.retrieving import scored_queries
from uar.labels import Stage
from uar.labels.example_columns import Examples, weights_of

log = logging.getLogger(__name__)
Asked = tuple[str, str | None]  # a question's words, and its image


def tell_seen(
    stages: Sequence[Stage], collection: Collection, dev: tuple[Collection, Sequence[str]] | None, tests: Sequence[Collection]
) -> None:
    """Warn of questions that are scored in `tests` and learnt from or choose the weights too, and of those that choose the
    weights and are learnt from. Questions are the same by their words and images, whatever their ids are. `collection`: that
    is learnt from; `dev`: the questions that choose the weights."""
    learnt = _asked(collection, (q for stage in stages for q in _learnt(stage)))
    if dev:
        _tell(*dev, learnt, "choose the weights and are learnt from too (dataset.dev)")
    choosing = _asked(*dev) if dev else set()
    for test in tests:
        scored = scored_queries(test)
        _tell(test, scored, learnt, "are learnt from too, and their scores say nothing of new questions")
        _tell(test, scored, choosing, "choose the weights too (dataset.dev), and their scores flatter the model")


def _learnt(stage: Stage) -> Iterable[str]:
    examples = stage.examples
    query_ids = examples.query_ids if isinstance(examples, Examples) else [example.query_id for example in examples]
    return (q for q, weight in zip(query_ids, weights_of(examples).tolist(), strict=True) if weight > 0)


def _asked(collection: Collection, query_ids: Iterable[str]) -> set[Asked]:
    return {collection.queries[query_id].asked for query_id in query_ids}


def _tell(collection: Collection, query_ids: Sequence[str], seen: set[Asked], how: str) -> None:
    number = sum(collection.queries[query_id].asked in seen for query_id in query_ids)
    if number:
        log.warning("%s: %d of %d questions %s", collection.reference, number, len(query_ids), how)
