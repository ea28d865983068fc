"""Answer measures by name, each from 0 to 1: EM, F1, F1-HotpotQA, AnswerRecall, ROUGE-L, BLEU-1 to BLEU-4, BERTScore."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from uar.collections import answer_match as answers
from uar.errors import UserError
from uar.evaluation.rag import marco
from uar.evaluation.rag.bert_score import BertScore


@dataclass(frozen=True)
class Answered:
    """One question: the generated answer, the gold ones (at least one), and the passages as they were shown."""

    answer: str
    gold: tuple[str, ...]
    passages: tuple[str, ...] = ()


class Measure(ABC):
    """`needs_passages`: whether it says something of passages, and nothing of an answer without them. `definition`: what
    computes it over which texts, with the versions; kept beside the generations."""

    needs_passages = False

    @property
    @abstractmethod
    def definition(self) -> str: ...

    @abstractmethod
    def per_question(self, answered: Sequence[Answered]) -> list[float] | None:
        """A value a question; None where it is one of all questions together."""

    def overall(self, answered: Sequence[Answered], values: Sequence[float] | None) -> float:
        """One value of all questions, from those of `per_question`: their mean."""
        return sum(values) / len(values) if values else 0.0


@dataclass(frozen=True)
class OfOne(Measure):
    """A measure that is a function of one question."""

    of: Callable[[Answered], float]
    made_by: Callable[[], str]
    needs_passages: bool = False

    @property
    def definition(self) -> str:
        return self.made_by()

    def per_question(self, answered: Sequence[Answered]) -> list[float]:
        return [self.of(one) for one in answered]


@dataclass(frozen=True)
class Bleu(Measure):
    """Corpus BLEU of sacrebleu over texts normalised as MS MARCO QA does: n-grams up to `order`, unsmoothed, the closest
    reference length. A share, not sacrebleu's percentage."""

    order: int

    @property
    def definition(self) -> str:
        made_by = f"sacrebleu {version('sacrebleu')}, n-grams up to {self.order}, unsmoothed, {marco.NAME}"
        return f"{made_by}; convention of ms_marco_eval.py: one corpus BLEU, the closest reference length"

    def per_question(self, answered: Sequence[Answered]) -> None:
        return None

    def overall(self, answered: Sequence[Answered], values: Sequence[float] | None = None) -> float:
        from sacrebleu.metrics import BLEU  # slow to import, and only here needed

        most = max(len(one.gold) for one in answered)
        gold = [[marco.normalise(g) for g in one.gold] + [None] * (most - len(one.gold)) for one in answered]
        bleu = BLEU(max_ngram_order=self.order, tokenize="none", smooth_method="none", force=True)
        streams = [list(stream) for stream in zip(*gold, strict=True)]
        return float(bleu.corpus_score([marco.normalise(one.answer) for one in answered], streams).score) / 100


@dataclass(frozen=True)
class Bert(Measure):
    scorer: BertScore

    @property
    def definition(self) -> str:
        made_by = f"bert-score {version('bert-score')}, {self.scorer.model}, layer {self.scorer.layers}, no idf, not rescaled"
        return f"{made_by}; convention of the bert-score package: the best F1 over the gold answers"

    def per_question(self, answered: Sequence[Answered]) -> list[float]:
        return self.scorer.f1([one.answer for one in answered], [one.gold for one in answered])


def answer_recall(answered: Answered) -> float:
    """1 where a gold answer stands in one of the passages, word by word, both normalised as SQuAD does."""
    return float(any(answers.hold_answer(answered.passages, answered.gold)))


def hotpot_f1(answered: Answered) -> float:
    """F1 as HotpotQA's script (hotpot_evaluate_v1.py) has it: beside yes, no or noanswer another answer is worth nothing."""
    answer = answers.normalise(answered.answer)
    whole = {"yes", "no", "noanswer"}
    gold = [g for g in answered.gold if answers.normalise(g) == answer or not {answers.normalise(g), answer} & whole]
    return answers.f1(answered.answer, gold) if gold else 0.0


def _squad() -> str:
    return answers.NAME


def _rouge() -> str:
    made_by = f"rouge-score {version('rouge-score')}, F-measure over stems, beyond ASCII by Unicode words (version 2)"
    return f"{made_by}; convention of the rouge-score package, not of ms_marco_eval.py, which has no stems and a beta of 1.2"


MEASURES: dict[str, Measure] = {
    "EM": OfOne(lambda one: answers.exact_match(one.answer, one.gold), _squad),
    "F1": OfOne(lambda one: answers.f1(one.answer, one.gold), _squad),
    "F1-HotpotQA": OfOne(hotpot_f1, lambda: f"{_squad()}, yes, no and noanswer whole, as in hotpot_evaluate_v1.py"),
    "AnswerRecall": OfOne(answer_recall, _squad, needs_passages=True),
    "ROUGE-L": OfOne(lambda one: answers.rouge_l(one.answer, one.gold), _rouge),
    **{f"BLEU-{order}": Bleu(order) for order in (1, 2, 3, 4)},
}
BERT = "BERTScore"


def open_measures(names: Sequence[str], bert: Callable[[], BertScore], judged: Sequence[str] = ()) -> dict[str, Measure]:
    """Measures by name, without those that are `judged`; `bert` makes the scorer of BERTScore where it is asked for. UserError
    for an unknown name."""
    known = [*MEASURES, BERT, *judged]
    for name in names:
        if name not in known:
            raise UserError(f"rag.measures: {name!r} is not known; allowed: {', '.join(known)}")
    if not names:
        raise UserError(f"rag.measures is empty; name at least one of {', '.join(known)}, or give rag=off")
    gold = (name for name in dict.fromkeys(names) if name not in judged)
    return {name: Bert(bert()) if name == BERT else MEASURES[name] for name in gold}
