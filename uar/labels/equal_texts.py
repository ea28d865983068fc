"""Passages of equal text, which have one label a query."""

from collections.abc import Mapping, Sequence

from uar.collections import Collection
from uar.labels.examples import Example, Pair, example_of
from uar.storage.copies import first_of_equal


def with_shared_labels(examples: Sequence[Example], collection: Collection) -> list[Example]:
    """The examples with copies of a positive among its query's negatives as positives, by who said so and with its utility."""
    docs = list(dict.fromkeys(pair.doc_id for example in examples for pair in example.pairs()))
    texts = collection.corpus.texts(collection.corpus.rows(docs))
    text_of = dict(zip(docs, first_of_equal(t.encode("utf-8", "surrogatepass") for t in texts).tolist(), strict=True))
    return [_shared(example, text_of) for example in examples]


def _shared(example: Example, text_of: Mapping[str, int]) -> Example:
    best: dict[int, Pair] = {}
    pairs: list[Pair] = []
    for pair in example.pairs():  # positives, the best first, then negatives
        if pair.label:
            best.setdefault(text_of[pair.doc_id], pair)
        original = pair if pair.label else best.get(text_of[pair.doc_id], pair)
        pairs.append(original._replace(doc_id=pair.doc_id))
    if sum(pair.label for pair in pairs) == len(example.positives):
        return example
    return example_of(example.query_id, pairs, example.source, example.ignored, example.weight)
