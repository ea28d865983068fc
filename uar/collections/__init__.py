"""Corpora, queries, judgements and answers behind one reader: `open_collection("local:DIR:test")`."""

from uar.collections.by_reference import open_collection, open_corpus, open_training_split
from uar.collections.collection import Collection, Query
from uar.collections.documents import Corpus
from uar.collections.reference import corpus_file, resolve, slug

__all__ = [
    "Collection",
    "Corpus",
    "Query",
    "corpus_file",
    "open_collection",
    "open_corpus",
    "open_training_split",
    "resolve",
    "slug",
]
