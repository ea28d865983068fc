"""The gate: an annotator is compared with people on some questions before it is asked about the others.

Human judgements of drawn questions and the annotator's judgements of them come in; a decision and, of the half that does not
decide, the pairs to refine the prompt on go out into the run folder.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uar.annotation.annotation import Asked
from uar.annotation.annotators import Judged
from uar.annotation.judged_blocks import of_queries
from uar.annotation.quality.disagreements import worst_disagreements
from uar.annotation.quality.lower_bound import MEASURES, AtLeast, at_least
from uar.collections import Collection
from uar.errors import UserError
from uar.llm.engines.work import Work
from uar.llm.pooled import PooledQuestions
from uar.storage.files import digest, read_json, write_json, write_jsonl
from uar.storage.locks import alone
from uar.storage.ordering import rank_of

log = logging.getLogger(__name__)
FEWEST = 5  # questions that decide
RESULT, PAIRS = "gate.json", "gate_disagreements.jsonl"


class GateClosed(UserError):
    """The annotator does not surely agree with people as well as it is asked to."""


@dataclass(frozen=True)
class Gate:
    """`questions` that people judged, drawn by the run's seed, are asked before all others; 0: no gate. A `refine` share of
    them is for the prompt alone: the worst pairs are listed. Of the others the lower end of the one-sided interval of
    `measure` at `level` must reach `floor`, else GateClosed (held-out validation before use: arXiv 2306.00176)."""

    questions: int = 0
    measure: str = "balanced_accuracy"
    floor: float = 0.8
    refine: float = 0.5
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.questions < 0:
            raise UserError(f"gate.questions={self.questions}: a number of questions is needed, or 0 for no gate")
        if self.measure not in MEASURES:
            raise UserError(f"gate.measure={self.measure}: allowed: {', '.join(MEASURES)}")
        for name, least in (("floor", 0.0), ("refine", 0.0), ("level", 0.5)):
            if not least <= (value := getattr(self, name)) < 1:
                raise UserError(f"gate.{name}={value}: a number from {least:g} to below 1 is needed")
        if self.questions and self._deciding < FEWEST:
            raise UserError(
                f"gate.questions={self.questions}, gate.refine={self.refine:g}: {self._deciding} questions would decide, and "
                f"{FEWEST} or more are needed; 50 are better"
            )

    @property
    def _deciding(self) -> int:
        return self.questions - round(self.questions * self.refine)

    def draw(
        self, collection: Collection, seed: int, apart: Container[str], can_be_asked: Callable[[str], bool]
    ) -> tuple[list[str], list[str]]:
        """The questions that refine and those that decide, none of them among those set `apart`. UserError where people judged
        fewer. The halves are dealt out in turn, so that those of a smaller gate stay in theirs."""
        judged = [q for q in collection.queries if collection.qrels.get(q) and collection.origin_of(q) == "human"]
        left = [q for q in judged if q not in apart and can_be_asked(q)]
        if len(left) < self.questions:
            used = len(judged) - len(left)
            taken = f", {used} of which calibration takes or cannot be asked" if used else ""
            raise UserError(
                f"gate.questions={self.questions}: people judged {len(judged)} questions of {collection.reference}{taken}; "
                "have more judged (qrels), or lower gate.questions (0: no gate)"
            )
        drawn = sorted(left, key=lambda q: rank_of(seed, "gate", q))[: self.questions]
        refining = [round((n + 1) * self.refine) > round(n * self.refine) for n in range(len(drawn))]
        halves = ([q for q, to_refine in zip(drawn, refining, strict=True) if to_refine is which] for which in (True, False))
        return next(halves), next(halves)


@dataclass
class Comparison:
    """Of an annotator with people at a gate. `closed`: whether it was found not good enough."""

    gate: Gate
    refining: Sequence[str]
    deciding: Sequence[str]
    seed: int
    closed: bool = field(default=False, init=False)

    @property
    def every(self) -> list[str]:
        return [*self.refining, *self.deciding]

    def ask_first(self, work: Work, pools: Mapping[str, Sequence[str]], asked: Asked, folder: Path) -> None:
        """Let the work ask these questions, and those of calibration, before all others, which wait for the decision."""
        collection, annotator = asked.collection, asked.annotator
        first = {*self.every, *annotator.asked_besides(collection, self.seed)}
        work.rounds = [PooledQuestions(collection, {q: pool for q, pool in pools.items() if (q in first) == now})
                       for now in (True, False)]  # fmt: skip

        def decide() -> None:
            judged, _ = annotator.finish(collection, work.results_of(pools), self.seed)
            self.decide(asked, judged, folder, work.store)

        work.between = decide

    def to_refine(self, judged: Judged) -> Judged:
        """Without the questions that decided against the annotator: who reads single pairs of these would refine on them."""
        hidden = set(self.deciding) if self.closed else set()
        return of_queries(judged, [q for q in judged if q not in hidden])

    def decide(self, asked: Asked, judged: Judged, folder: Path, store: Path) -> None:
        """Write `gate.json` and `gate_disagreements.jsonl`; GateClosed where the bound is below the floor."""
        collection, gate = asked.collection, self.gate
        refined, decided = (self._at_least(collection, judged, half) for half in (self.refining, self.deciding))
        write_jsonl(folder / PAIRS, (row._asdict() for row in worst_disagreements(collection, _of(judged, self.refining))))
        self.closed = decided.questions < FEWEST or decided.low is None or decided.low < gate.floor
        result: dict[str, Any] = {
            **{name: getattr(gate, name) for name in ("measure", "floor", "level")},
            "passed": not self.closed,
            "deciding": {**decided._asdict(), "query_ids": self.deciding},
            "refining": {**refined._asdict(), "query_ids": self.refining},
            "decisions": self._count(asked, store),
        }
        write_json(folder / RESULT, result)
        if result["decisions"] > 1:
            line = "gate: these questions have decided on %d annotators or prompts now, and the bound is that of one; seed=%d "
            log.warning(line + "draws others, and more of them decide with a larger gate.questions", result["decisions"],
                        self.seed + 1)  # fmt: skip
        said = self._in_words(decided)
        if self.closed:
            raise GateClosed(self._advice(said, decided, folder))
        log.info("Gate passed: %s, gate.floor=%g", said, gate.floor)

    def _at_least(self, collection: Collection, judged: Judged, query_ids: Sequence[str]) -> AtLeast:
        return at_least(collection, _of(judged, query_ids), self.gate.measure, self.gate.level, self.seed)

    def _in_words(self, decided: AtLeast) -> str:
        name = self.gate.measure
        of = f"{decided.questions} of {len(self.deciding)} questions that people judged ({decided.pairs} passages)"
        if decided.value is None or decided.low is None:
            return f"{name} is not defined over {of}"
        return f"{name} {decided.value:.3f} over {of}, at least {decided.low:.3f} with {100 * self.gate.level:g} % confidence"

    def _advice(self, said: str, decided: AtLeast, folder: Path) -> str:
        gate = self.gate
        if decided.questions < FEWEST:
            return (
                f"gate: {said}: of the others no passage was judged by both, or the annotator failed; {FEWEST} or more are "
                "needed. Nothing else was asked: widen candidates, or see failures.jsonl"
            )
        if decided.value is None:
            return (
                f"gate: {said}: people gave one label alone. Nothing else was asked: widen candidates, or use "
                "gate.measure=accuracy, recall or ranked_first"
            )
        if decided.value >= gate.floor:
            better = "more questions may show that it is good enough (gate.questions)"
        else:
            better = f"refine the prompt on {folder / PAIRS} (annotator.template, annotator.guideline) or use a better model"
        return f"gate: {said}, below gate.floor={gate.floor:g}. Nothing else was asked: {better}, or lower gate.floor"

    def _count(self, asked: Asked, store: Path) -> int:
        """How many annotators these questions have decided on, this one among them."""
        path = store / "gates" / f"{digest(asked.collection.corpus.hash, sorted(self.deciding))}.json"
        mine = digest(asked.key, asked.annotator.reads())
        with alone(path.with_suffix(".lock")):
            known = list(read_json(path)) if path.is_file() else []
            if mine not in known:
                known.append(mine)
                write_json(path, known)
        return known.index(mine) + 1


def open_gate(gate: Gate, asked: Asked, seed: int) -> Comparison | None:
    """With its questions drawn; None where the gate asks none. They are apart from those of calibration."""
    if not gate.questions:
        return None
    collection, annotator, own = asked.collection, asked.annotator, asked.own

    def can_be_asked(query_id: str) -> bool:
        answered = bool(collection.queries[query_id].answers) or not annotator.needs_gold_answers
        return answered and (own is None or query_id in own.pools)

    return Comparison(gate, *gate.draw(collection, seed, annotator.asked_besides(collection, seed), can_be_asked), seed)


def _of(judged: Judged, query_ids: Sequence[str]) -> Judged:
    return of_queries(judged, [q for q in query_ids if q in judged])
