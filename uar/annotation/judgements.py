"""Judgements of a collection from what the store holds: nothing is asked."""

from uar.annotation.chains import Chains
from uar.annotation.stages import Annotator, Judgement, Question
from uar.annotation.store import Store
from uar.collections import Collection


def question_of(collection: Collection, query_id: str, pool: list[str]) -> Question:
    """A question with the texts of its pool."""
    query, corpus = collection.queries[query_id], collection.corpus
    texts = {d: corpus.text(row) for d, row in zip(pool, corpus.rows(pool), strict=True)}
    return Question(query_id, query.text, texts, query.answers)


def kept_judgements(collection: Collection, annotator: Annotator, store: Store, model: str) -> dict[str, list[Judgement]]:
    """Judgements a query by replaying the annotator over kept records. Prompts are rendered anew, so that records of a
    text, wording or model that has changed since do not count."""
    first = annotator.first_prompt_hash
    records = store.load(collection.slug, annotator.stages, model)
    pools = annotator.annotated_pools(r for r in records if (r.stage, r.template_hash) == (annotator.stages[0], first))
    questions = (
        question_of(collection, q, [d for d in pools[q] if collection.corpus.row(d) >= 0])
        for q in collection.queries
        if q in pools
    )
    return dict(Chains(annotator, store, collection.slug, model, engine=None).run(questions))
