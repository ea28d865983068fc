"""Retrieval and re-ranking by a vector a token, in a session."""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from uar.collections import Collection
from uar.collections.collection_runs import without_own
from uar.launch.bars import bar
from uar.retrievers.colbert.max_sim import max_sim_flat
from uar.retrievers.colbert.residuals import Form
from uar.retrievers.colbert.token_index import Flat, TokenIndex, flat_vectors, made_by, of_places
from uar.retrievers.encoder_ranker import EncoderRanker
from uar.retrievers.exact_search import Best
from uar.retrievers.pool_blocks import pool_blocks
from uar.retrievers.ranker import Pools, rows_of, run_of
from uar.retrievers.session import Session
from uar.retrievers.trainable import Encoder
from uar.storage.files import digest
from uar.storage.ordering import best_first
from uar.storage.runs import Run

log = logging.getLogger(__name__)
SCORED = 512  # passages of pools encoded at a time


class MultiVectorRanker(EncoderRanker):
    """An encoder of a vector a token, compared by MaxSim. `form`: of its index."""

    def __init__(self, encoder: Encoder, form: Form, session: Session, part: str = "") -> None:
        super().__init__(encoder, session, part)
        self._form = form

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        search, corpus = self._session.search, collection.corpus
        self._encoder.check_search(search, collection)
        search.warn_of_processes(self.name)
        precision = search.precision
        with self._session.preparing():
            tokens = self._encoder.passage_tokens(collection)
            made = made_by(self._encoder, tokens, self._form, precision)
            folder = self._session.vectors.folder(corpus, self._part, digest(made))
            index = TokenIndex(self._encoder, tokens, self._form, precision, folder, made)
        each = round(index.bytes / len(corpus), 1)
        self._session.note(self._part, {"bytes_per_passage": each})
        log.info("Index of %s, %s: %.0f bytes a passage, %.1f MiB", self.name, self._form.index, each, index.bytes / 2**20)
        queries = self._queries(collection, query_ids)
        deep = min(depth + collection.drop_own, len(corpus))
        best = self._all(collection, index, queries, deep)
        return without_own(collection, run_of(collection, query_ids, best.scores.numpy(), best.rows.numpy()), depth)

    def score(self, collection: Collection, pools: Pools) -> Run:
        """With vectors in full, whatever the index keeps. A passage of several pools is encoded once."""
        rows = rows_of(collection, pools)
        vectors, owners = self._queries(collection, list(pools))
        asked = {q: vectors[owners[at] : owners[at + 1]] for at, q in enumerate(pools)}
        scores = {q: np.zeros(len(own), np.float32) for q, own in rows.items()}
        tokens = self._encoder.passage_tokens(collection)
        with bar("encode passages", None, "passages") as shown:
            for block, shared in pool_blocks(rows, SCORED):
                found = flat_vectors(self._encoder, tokens, block, self._session.search.precision)
                for query_id, at, places in shared:
                    scores[query_id][at] = _of_one(asked[query_id], found, places)
                shown.advance(len(block))
        return {q: best_first(zip(pool, scores[q].tolist(), strict=True)) for q, pool in pools.items()}

    def _queries(self, collection: Collection, query_ids: Sequence[str]) -> Flat:
        rows = np.array([collection.query_rows[q] for q in query_ids], np.int64)
        tokens = self._encoder.query_tokens(collection)
        return flat_vectors(self._encoder, tokens, rows, self._session.search.precision, role="query")

    def _all(self, collection: Collection, index: TokenIndex, queries: Flat, depth: int) -> Best:
        """Every passage, or the candidates, compared with every query."""
        vectors, owners = queries
        candidates = self._candidates(collection, index, queries, depth) if self._form.candidates else None
        best = _best(collection, len(owners) - 1, depth)
        for number in index.numbers:
            rows = index.rows(number)
            if candidates is None:
                scores = max_sim_flat(vectors, owners, *index.vectors(number))
            else:
                scores = np.full((len(owners) - 1, len(rows)), -np.inf, np.float32)
                used = np.unique(candidates[(candidates >= rows[0]) & (candidates <= rows[-1])]) - rows[0]
                found = index.vectors(number, used)
                for at, own in enumerate(candidates):
                    places = own[(own >= rows[0]) & (own <= rows[-1])] - rows[0]
                    if len(places):
                        asked = vectors[owners[at] : owners[at + 1]]
                        scores[at, places] = _of_one(asked, found, np.searchsorted(used, places))
            best.add_scores(torch.from_numpy(scores), int(rows[0]))
        return best

    def _candidates(self, collection: Collection, index: TokenIndex, queries: Flat, depth: int) -> np.ndarray:
        """(queries, candidates) corpus rows, -1 where there are fewer: the best by centroids in place of vectors, of each
        query vector the nearest ones alone."""
        vectors, owners = queries
        probes = min(self._form.probes, len(index.centroids))
        best = _best(collection, len(owners) - 1, max(depth, self._form.candidates or 0))
        near = vectors @ index.centroids.T
        nearest = np.argpartition(-near, probes - 1, axis=1)[:, :probes]
        for number in index.numbers:
            rows = index.rows(number)
            passages, starts = index.lists(number)
            scores = np.full((len(owners) - 1, len(rows)), -np.inf, np.float32)
            for at in range(len(owners) - 1):
                of_each = np.zeros((owners[at + 1] - owners[at], len(rows)), np.float32)
                hit = np.zeros(len(rows), bool)
                for own, vector in zip(of_each, range(owners[at], owners[at + 1]), strict=True):
                    close = nearest[vector]
                    for centroid in close[np.argsort(near[vector, close])]:  # the nearest one last
                        places = passages[starts[centroid] : starts[centroid + 1]]
                        own[places], hit[places] = near[vector, centroid], True
                scores[at, hit] = of_each.sum(axis=0)[hit]
            best.add_scores(torch.from_numpy(scores), int(rows[0]))
        return np.where(best.scores.numpy() > -np.inf, best.rows.numpy(), -1)


def _best(collection: Collection, queries: int, k: int) -> Best:
    return Best(torch.empty(queries, 0), k, torch.from_numpy(np.ascontiguousarray(collection.corpus.id_ranks())))


def _of_one(query: np.ndarray, passages: Flat, places: np.ndarray) -> np.ndarray:
    """Scores of some of the passages for one query."""
    vectors, ends = passages
    at, begins = of_places(ends, places)
    return max_sim_flat(query, np.array([0, len(query)]), vectors[at], begins)[0]
