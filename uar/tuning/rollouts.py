"""Replies that a model draws for the cases of a task, kept in the store like any other call."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import pyarrow as pa

from uar.collections import Collection
from uar.errors import UserError
from uar.launch.bars import bar
from uar.llm.call import Asker, Chain, Question
from uar.llm.chains import Chains
from uar.llm.models import LLM, identity_of
from uar.llm.progress import Progress
from uar.llm.record import Reply
from uar.llm.store.store import Store
from uar.storage.files import write_table
from uar.tuning.reward import Rewards
from uar.tuning.task import Case, Rolled, Task

log = logging.getLogger(__name__)
ROLLOUTS = "rollouts.parquet"


class Rollout(NamedTuple):
    """A reply with its sum of rewards, and each of them by name."""

    rolled: Rolled
    reward: float
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Sampling(Asker):
    """Asks each case of a question `samples` times at `temperature`, or at 0 as it is asked later. The chain's value is a list
    of replies a case."""

    cases: Mapping[str, Sequence[Case]]
    samples: int
    temperature: float
    _stages: tuple[str, ...] = field(default=())

    @property
    def stages(self) -> tuple[str, ...]:
        return self._stages

    def chain(self, question: Question) -> Chain:
        own, times = self.cases[question.id], self.samples
        drawn = [case.written(self.temperature, n) if self.temperature else case.call for case in own for n in range(times)]
        replies = yield drawn
        return [replies[at * times : (at + 1) * times] for at in range(len(own))]


@dataclass(frozen=True)
class Asked:
    """A model, by its config, that is asked about the cases of a task. Replies that are in the store are not asked for."""

    task: Task
    collection: Collection
    rewards: Rewards
    llm: Mapping[str, Any]
    store: Path

    def of(self, model: Mapping[str, Any]) -> "Asked":
        """The same of another model, by those of these options that the config has."""
        return replace(self, llm={**self.llm, **{name: value for name, value in model.items() if name in self.llm}})

    def replies(self, cases: Sequence[Case], samples: int, temperature: float) -> list[list[Rolled]]:
        """`samples` replies a case, in the order of the cases."""
        by_question: dict[str, list[Case]] = {}
        for case in cases:
            by_question.setdefault(case.question.id, []).append(case)
        asker = Sampling(by_question, samples, temperature, tuple({case.call.stage: None for case in cases}))
        found = self._ask(asker, [own[0].question for own in by_question.values()])
        of_case = {id(case): drawn for q, own in by_question.items() for case, drawn in zip(own, found[q], strict=True)}
        rolled = [
            [Rolled(case, reply, self.task.value(case, reply, temperature > 0)) for reply in of_case[id(case)]]
            for case in cases
        ]
        failed = sum(one.value is None for drawn in rolled for one in drawn)
        if failed:
            line = "%s: %d of %d replies cannot be read and have reward 0"
            log.info(line, self.collection.slug, failed, len(cases) * samples)
        return rolled

    def rollouts(self, cases: Sequence[Case], samples: int, temperature: float) -> list[list[Rollout]]:
        """The same with rewards. UserError where no reply can be read."""
        drawn = self.replies(cases, samples, temperature)
        every = [one for of_case in drawn for one in of_case]
        if all(one.value is None for one in every):
            last = every[-1]
            raise UserError(
                f"{self.collection.slug}: none of {len(every)} replies of {identity_of(self.llm)} can be read, so there is "
                f"nothing to learn from; the last: {last.case.written().check(last.reply)}: {last.reply.output[:120]!r}. Use "
                "a model that follows the prompt, or tuner=sft first"
            )
        each = self.rewards.each(self.task, self.collection, every)
        total = iter(self.rewards.total(each))
        parts = iter([dict(zip(each, row, strict=True)) for row in zip(*each.values(), strict=True)])
        return [[Rollout(one, next(total), next(parts)) for one in of_case] for of_case in drawn]

    def _ask(self, asker: Sampling, questions: Sequence[Question]) -> dict[str, list[list[Reply]]]:
        store, progress = Store(self.store), Progress()
        model = hydra.utils.instantiate(self.llm, _convert_="all")
        llm = LLM(identity_of(self.llm), model)
        chains = Chains(asker, store, self.collection.slug, [llm], 1.0, progress=progress)
        found: dict[str, list[list[Reply]]] = {}
        try:
            with bar("Rollouts", len(questions), "questions") as drawn:
                for question_id, result in chains.run(questions):
                    found[question_id] = result
                    drawn.at(len(found), f"{progress.total.asked:,} calls, {progress.total.kept:,} from the store")
        finally:
            store.close()
            model.close()
        total = progress.total
        log.info("%s: %d calls of %s, %d from the store", self.collection.slug, total.asked, llm.name, total.kept)
        return found


def write_rollouts(path: Path, rollouts: Sequence[Sequence[Rollout]]) -> None:
    """One row a reply: question, passages shown, place among the replies to the same, text, rewards."""
    rows = [(case, n, one) for case, drawn in enumerate(rollouts) for n, one in enumerate(drawn)]
    names = list(rows[0][2].parts) if rows else []
    columns: dict[str, list[Any]] = {
        "case": [case for case, _, _ in rows],
        "query_id": [one.rolled.case.question.id for _, _, one in rows],
        "doc_ids": [list(one.rolled.case.question.passages) for _, _, one in rows],
        "sample": [n for _, n, _ in rows],
        "reply": [one.rolled.reply.output for _, _, one in rows],
        "readable": [one.rolled.value is not None for _, _, one in rows],
        "reward": [one.reward for _, _, one in rows],
        **{f"reward.{name}": [one.parts[name] for _, _, one in rows] for name in names},
    }
    write_table(path, pa.table(columns))
