"""Questions of a split that training sees: what is scored on them says nothing of new ones."""

from collections.abc import Iterable, Sequence

from uar.collections import Collection
from uar.collections.same_questions import asked_of, tell_same
from uar.evaluation.retrieving import scored_queries
from uar.labels import Stage
from uar.labels.example_columns import Examples, weights_of


def tell_seen(
    stages: Sequence[Stage], collection: Collection, dev: tuple[Collection, Sequence[str]] | None, tests: Sequence[Collection]
) -> None:
    """Warn of questions that are scored in `tests` and learnt from or choose the weights too, and of those that choose the
    weights and are learnt from. Questions are the same by their words and images, whatever their ids are. `collection`: that
    is learnt from; `dev`: the questions that choose the weights."""
    choosing = asked_of(*dev) if dev else set()
    every = [(test, scored_queries(test)) for test in tests]
    wanted = choosing.union(*(asked_of(*scored) for scored in every))  # of fewer questions than are learnt from
    asked = (collection.queries[q].asked for stage in stages for q in _learnt(stage))
    learnt = {one for one in asked if one in wanted}
    if dev:
        tell_same(*dev, learnt, "choose the weights and are learnt from too (dataset.dev)")
    for test, scored in every:
        tell_same(test, scored, learnt, "are learnt from too, and their scores say nothing of new questions")
        tell_same(test, scored, choosing, "choose the weights too (dataset.dev), and their scores flatter the model")


def _learnt(stage: Stage) -> Iterable[str]:
    examples = stage.examples
    query_ids = examples.query_ids if isinstance(examples, Examples) else [example.query_id for example in examples]
    return (q for q, weight in zip(query_ids, weights_of(examples).tolist(), strict=True) if weight > 0)
