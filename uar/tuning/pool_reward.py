"""What a text that is added to a passage is worth to the questions whose pools hold the passage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from uar.collections import Collection
from uar.errors import UserError
from uar.evaluation.measures import parsed, per_query
from uar.expansion.passage_texts import with_text
from uar.storage.ordering import Hit, best_first
from uar.tuning.passage_task import PassageCase, PassageTask
from uar.tuning.reward import RankingReward, no_gold
from uar.tuning.task import Case, Rolled, Task


@dataclass(frozen=True)
class PoolReward(RankingReward):
    """`measure`, as ir_measures names it, of a question's pool as `retriever` scores it with the text joined to its passage
    and the other passages as they are; the mean over the questions whose pools hold the passage. Judgements of passages
    outside of a pool do not count.

    All are scored in one corpus, in which passages stand as they are and once more with each of their texts: statistics of
    BM25 are of that corpus.
    """

    measure: str = "nDCG@10"

    def __post_init__(self) -> None:
        parsed([self.measure])

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        self.refuse_fusion("pool")
        own = [case for case in cases if isinstance(case, PassageCase)]
        if len(own) < len(cases):
            raise UserError("reward=pool is of texts of passages alone; it is for task=passage_expansion")
        if not any(collection.positives(q) for case in own for q in case.pools):
            raise no_gold("pool", collection, "judgements", "give a split with qrels")

    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        if not isinstance(task, PassageTask):
            raise TypeError(type(task).__name__)
        texts: dict[str, list[str]] = {}
        pools: dict[str, tuple[str, ...]] = {}
        expanded = []  # ids of the passages with their texts
        for one in rolled:
            doc_id = one.case.question.id
            expanded.append(with_text(doc_id, len(texts.setdefault(doc_id, []))))
            texts[doc_id].append(one.value)
            pools |= _pools(one)
        shown = {
            q: [*pool, *(with_text(d, at) for d in pool for at in range(len(texts.get(d, ()))))] for q, pool in pools.items()
        }
        with self.corpus_of_each(collection, texts, task.passage_writer.before, plain=True) as searched:
            run = self.retriever.opened(self.session).score(searched, shown)
        scores = {q: dict(hits) for q, hits in run.items()}
        ranked: dict[str, list[Hit]] = {}  # by query and place in `rolled`
        qrels = {}
        for at, (one, doc_id) in enumerate(zip(rolled, expanded, strict=True)):
            for q, pool in _pools(one).items():
                own = {d: scores[q][doc_id if d == one.case.question.id else d] for d in pool}
                ranked[with_text(q, at)] = best_first(own.items())
                qrels[with_text(q, at)] = {d: g for d, g in collection.qrels.get(q, {}).items() if d in own}
        found = per_query(replace(collection, qrels=qrels), ranked, [self.measure], list(ranked))
        values = {name: value for name, _, value in found}
        each = [[values[with_text(q, at)] for q in _pools(one)] for at, one in enumerate(rolled)]
        return [sum(own) / len(own) for own in each]


def _pools(one: Rolled) -> dict[str, tuple[str, ...]]:
    return dict(one.case.pools) if isinstance(one.case, PassageCase) else {}
