"""Judgements that are a probability a passage, kept as columns and made when a question is asked for."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from uar.annotation.annotators.scored import entropy
from uar.annotation.judgement import Judgement
from uar.collections import Corpus
from uar.labels.annotator_features import LABEL, Features
from uar.storage.segments import ends_of


class ProbableJudgements(Mapping[str, list[Judgement]]):
    """By query id. `parts`: features of some questions, of the annotators `names`, and (pairs,) probabilities; a passage is
    positive from `threshold` up, and said to be by the annotators that say the same."""

    def __init__(
        self, corpus: Corpus, parts: Sequence[tuple[Features, np.ndarray]], names: Sequence[str], threshold: float
    ) -> None:
        self._corpus, self._names, self._threshold = corpus, names, threshold
        ids = [q for features, _ in parts for q in features.query_ids]
        self._place = {query_id: place for place, query_id in enumerate(ids)}
        self._ends = ends_of(np.concatenate([np.bincount(f.query, minlength=len(f.query_ids)) for f, _ in parts]))
        self._rows = np.concatenate([f.rows for f, _ in parts]).astype(np.int32)
        self._chances = np.concatenate([p for _, p in parts]).astype(np.float32)
        self._labels = np.concatenate([f.values[:, :, LABEL] for f, _ in parts]).astype(np.float16)

    def __len__(self) -> int:
        return len(self._place)

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._place

    def __getitem__(self, query_id: str) -> list[Judgement]:
        at = self._place[query_id]
        own = slice(int(self._ends[at]), int(self._ends[at + 1]))
        ids, chances, labels = self._corpus.ids_at(self._rows[own]), self._chances[own].tolist(), self._labels[own]
        order = sorted(range(len(ids)), key=lambda place: (-chances[place], ids[place]))
        found = []
        for rank, place in enumerate(order, start=1):
            chance = chances[place]
            label = int(chance >= self._threshold)
            who = "+".join(name for name, said in zip(self._names, labels[place].tolist(), strict=True) if said == label)
            doubt = entropy(min(1.0, max(0.0, chance)))
            found.append(Judgement(ids[place], label, label, chance, rank, uncertainty=doubt, by=who))
        return found
