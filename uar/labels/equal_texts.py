"""Passages of equal text, which have one label a query."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from uar.collections import Collection
from uar.labels.example_columns import BLOCK, Examples
from uar.labels.examples import Example, Pair, example_of


def with_shared_labels(examples: Iterable[Example], collection: Collection) -> Examples:
    """The examples with copies of a positive among its query's negatives as positives, by who said so and with its utility."""
    return Examples.of(_in_blocks(examples, collection), collection.corpus)


def _in_blocks(examples: Iterable[Example], collection: Collection) -> Iterator[Example]:
    coming = iter(examples)
    while block := list(islice(coming, BLOCK)):
        docs = list(dict.fromkeys(pair.doc_id for example in block for pair in example.pairs()))
        hashes = collection.corpus.text_hashes[collection.corpus.rows(docs)]
        text_of = dict(zip(docs, hashes.tolist(), strict=True))
        yield from (_shared(example, text_of) for example in block)


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
