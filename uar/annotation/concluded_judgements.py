"""Judgements as they lie in conclusions: made when a question is asked for, or read as columns."""

from collections.abc import Iterable, Iterator

import numpy as np

from uar.annotation.conclusions import NUMBERS, Conclusions
from uar.annotation.judged_blocks import JudgedBlock, JudgedColumns
from uar.annotation.judgement import Judgement
from uar.collections import Corpus


class Judgements(JudgedColumns):
    """Of some questions, by query id."""

    def __init__(self, corpus: Corpus, conclusions: Conclusions, query_ids: Iterable[str]) -> None:
        self._corpus, self.conclusions = corpus, conclusions
        self._query_ids = dict.fromkeys(query_ids)

    def __len__(self) -> int:
        return len(self._query_ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._query_ids)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._query_ids

    def __getitem__(self, query_id: str) -> list[Judgement]:
        if query_id not in self._query_ids:
            raise KeyError(query_id)
        row = self.conclusions.row(query_id)
        columns = (row[name] for name in ("label", "grade", "score", "rank", "uncertainty", "logprobs", "votes"))
        return [
            Judgement(doc_id, label, grade, score, rank, doubt, tuple(logprobs), votes=tuple(votes))
            for doc_id, label, grade, score, rank, doubt, logprobs, votes in zip(
                self._corpus.ids_at(row["row"]), *columns, strict=True
            )
        ]

    def chosen(self, query_ids: Iterable[str]) -> "Judgements":
        return Judgements(self._corpus, self.conclusions, query_ids)

    def blocks(self) -> Iterator[JudgedBlock]:
        for query_ids, batch in self.conclusions.taken(list(self._query_ids), ("row", *NUMBERS)):
            numbers = {name: batch[name].flatten() for name in NUMBERS}
            doc_ids = self._corpus.id_column(batch["row"].flatten().to_numpy()).combine_chunks()
            yield JudgedBlock(query_ids, np.diff(batch["row"].offsets.to_numpy()), {"doc_id": doc_ids, **numbers})
