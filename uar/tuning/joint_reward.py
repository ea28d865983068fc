"""What texts that are added to queries and to passages are worth together (co-augmentation, arXiv 2506.18670, section 3)."""

from collections.abc import Sequence

import numpy as np


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
