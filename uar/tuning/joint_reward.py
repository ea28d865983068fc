"""What texts that are added to queries and to passages are worth together (co-augmentation, arXiv 2506.18670, section 3)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from uar.collections import Collection
from uar.errors import UserError
from uar.expansion.expanded import Expanded
from uar.expansion.passage_texts import with_text
from uar.tuning.co_augmentation_task import CoAugmentationTask, PooledCase
from uar.tuning.reward import RankingReward, no_gold
from uar.tuning.search_rewards import Written
from uar.tuning.task import Case, Rolled, Task


@dataclass(frozen=True)
class JointReward(RankingReward):
    """nDCG@`depth` of the pool of a query as `retriever` scores it, expected over the texts of the other side: see
    `joint_rewards` for that, and for `samples` and `seed`. A text of a passage has the mean of what it is worth to the queries
    whose pools hold the passage, and 0 where none of these has a text that can be read. A passage without a readable text is
    searched as it is.

    All are scored in one corpus, in which each passage stands once with each of its texts: statistics of BM25 are the means of
    those of the corpora that the draws make.
    """

    depth: int = 10
    samples: int = 64
    seed: int = 0

    together: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.depth < 1 or self.samples < 1:
            raise UserError(f"reward.depth={self.depth}, reward.samples={self.samples}: at least 1 is needed of either")

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        if not isinstance(task, CoAugmentationTask):
            raise UserError("reward=joint is of texts of queries and of passages; it is for task=co_augmentation")
        self.refuse_fusion("joint")
        if task.join == "fuse":
            raise UserError(
                "expand.join=fuse: ranks hang on all passages at once; give append, replace or mean with reward=joint"
            )
        if not any(isinstance(case, PooledCase) and collection.positives(case.question.id) for case in cases):
            raise no_gold("joint", collection, "judgements", "give a split with qrels")

    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        if not isinstance(task, CoAugmentationTask):
            raise TypeError(type(task).__name__)
        of_query: dict[str, list[int]] = {}  # places in `rolled`
        of_passage: dict[str, list[int]] = {}
        pools: dict[str, list[str]] = {}
        for at, one in enumerate(rolled):
            own = one.case
            (of_query if isinstance(own, PooledCase) else of_passage).setdefault(own.question.id, []).append(at)
            if isinstance(own, PooledCase):
                pools[own.question.id] = sorted(own.pool)  # equal scores are ranked by id
        columns = {q: list(_columns(pool, of_passage)) for q, pool in pools.items()}
        shown = {str(at): [c.doc_id for c in columns[q]] for q, own in of_query.items() for at in own}
        scores = self._scores(task, collection, rolled, shown, of_passage)
        found: list[list[float]] = [[] for _ in rolled]
        gains = collection.gains()
        for query_id, texts in of_query.items():
            worth = [max(0, gains.get(query_id, {}).get(d, 0)) for d in pools[query_id]]
            matrix, owners = np.array([scores[str(at)] for at in texts]), [c.owner for c in columns[query_id]]
            queries, passages = joint_rewards(matrix, owners, worth, self.samples, self.seed, self.depth)
            for at, value in zip(texts, queries.tolist(), strict=True):
                found[at].append(value)
            for column, value in zip(columns[query_id], passages.tolist(), strict=True):
                if column.at is not None:
                    found[column.at].append(value)
        return [sum(values) / len(values) if values else 0.0 for values in found]

    def _scores(
        self,
        task: CoAugmentationTask,
        collection: Collection,
        rolled: Sequence[Rolled],
        shown: Mapping[str, Sequence[str]],
        of_passage: Mapping[str, Sequence[int]],
    ) -> dict[str, list[float]]:
        """Of what is `shown` to each query text, which is named by its place in `rolled`."""
        texts = {d: [rolled[at].value for at in places] for d, places in of_passage.items()}
        queries = {at: replace(collection.queries[rolled[int(at)].case.question.id], id=at) for at in shown}
        written = Written({at: rolled[int(at)].value for at in shown}, task.join, task.repeat, task.query_length)
        ranker = Expanded(self.retriever, written).opened(self.session)
        with self.corpus_of_each(collection, texts, task.passage_writer.before) as searched:
            run = ranker.score(replace(searched, queries=queries), shown)
        by_id = {at: dict(hits) for at, hits in run.items()}
        return {at: [by_id[at][d] for d in ids] for at, ids in shown.items()}


class Column(NamedTuple):
    """A text of a passage: the passage's place in the pool, its id with this text, and the text's place among all replies;
    None where nobody wrote for the passage."""

    owner: int
    doc_id: str
    at: int | None


def _columns(pool: Sequence[str], of_passage: Mapping[str, Sequence[int]]) -> Iterator[Column]:
    for owner, doc_id in enumerate(pool):
        if doc_id not in of_passage:
            yield Column(owner, doc_id, None)
        for nth, at in enumerate(of_passage.get(doc_id, ())):
            yield Column(owner, with_text(doc_id, nth), at)


def joint_rewards(
    scores: np.ndarray, passage_of: Sequence[int], gains: Sequence[float], samples: int, seed: int, depth: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of the texts of one query, (query texts,), and of those of its passages, (passage texts,).

    `scores`: (query texts, passage texts), how well they match; `passage_of`: the passage of each passage text, from 0;
    `gains`: of each passage. One text of each passage is drawn, the passages are ranked for each text of the query, and
    nDCG@`depth` of the ranking counts for the texts that took part: a reward is the mean of what counted. Where there are at
    most `samples` ways to draw, each is taken once, and the rewards are exact; else so many are drawn. A passage text that no
    draw took has the mean of all. Equal scores are ranked in the order of the passages.
    """
    owner, worth = np.asarray(passage_of), np.asarray(gains, dtype=float)
    texts = [np.flatnonzero(owner == passage) for passage in range(len(worth))]
    drawn = _draws(texts, samples, seed)  # (draws, passages), numbers of texts
    order = np.argsort(-scores[:, drawn], axis=-1, kind="stable")[..., :depth]  # (query texts, draws, depth)
    discount = 1 / np.log2(np.arange(2, order.shape[-1] + 2))
    best = float((np.sort(worth)[::-1][:depth] * discount).sum())
    values = (worth[order] * discount).sum(-1) / best if best else np.zeros(order.shape[:-1])
    of_draws = values.mean(0)
    took = np.array([(drawn[:, owner[text]] == text) for text in range(len(owner))])  # (passage texts, draws)
    counts = took.sum(1)
    of_passages = np.where(counts > 0, (took * of_draws).sum(1) / np.maximum(counts, 1), of_draws.mean())
    return values.mean(1), of_passages


def _draws(texts: Sequence[np.ndarray], samples: int, seed: int) -> np.ndarray:
    """(draws, passages): all of them where there are at most `samples`."""
    ways = np.prod([float(len(own)) for own in texts])
    if ways <= samples:
        return np.stack([grid.ravel() for grid in np.meshgrid(*texts, indexing="ij")], axis=1)
    random = np.random.default_rng(seed)
    return np.stack([random.choice(own, samples) for own in texts], axis=1)
