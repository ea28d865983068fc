"""Judgements of a collection from what the store holds: nothing is asked."""

from collections.abc import Sequence

from uar.annotation.annotators import Annotator, Judged, Question
from uar.collections import Collection
from uar.llm.chains import Chains
from uar.llm.models import LLM
from uar.llm.store.store import Store


def question_of(collection: Collection, query_id: str, pool: list[str]) -> Question:
    """A question with the texts of its pool."""
    query, corpus = collection.queries[query_id], collection.corpus
    texts = {d: corpus.text(row) for d, row in zip(pool, corpus.rows(pool), strict=True)}
    return Question(query_id, query.text, texts, query.answers)


def kept_judgements(
    collection: Collection, annotator: Annotator, store: Store, models: Sequence[str], seed: int = 0
) -> Judged:
    """Judgements a query by replaying the annotator over kept records. Prompts are rendered anew, so that records of a
    text, wording or model that has changed since do not count."""
    pools = annotator.own_pools(collection)
    if pools is None:
        shown = store.shown(collection.slug, annotator.stages[0], annotator.first_prompt_hash, models[0])
        pools = annotator.annotated_pools(shown)
    questions = (
        question_of(collection, q, [d for d in pools[q] if collection.corpus.row(d) >= 0])
        for q in collection.queries
        if q in pools
    )
    judged = dict(Chains(annotator, store, collection.slug, [LLM(model) for model in models]).run(questions))
    return annotator.finish(collection, judged, seed)[0]
