"""Group-relative policy optimisation: replies that are drawn as the model learns, by their rewards in their group."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from uar.errors import UserError
from uar.llm.call import Call
from uar.llm.models.tokens import accepted_chat, chat_ids
from uar.llm.record import Generate, Outcome, Record, Reply
from uar.llm.store.store import Store
from uar.tuning import trl_training
from uar.tuning.best_of import check_sampling
from uar.tuning.reward import Rewards
from uar.tuning.task import Case, Rolled
from uar.tuning.token_rows import end_token
from uar.tuning.tuner import Tuner, Work

ENOUGH = 64  # replies after which a model that follows the prompt nowhere is known


@dataclass(frozen=True)
class GRPO(Tuner):
    """Each step draws `samples` replies to each of `batch_size` / `samples` prompts at `temperature`. A reply's advantage is
    its reward less the mean of its group, over the standard deviation (arXiv 2402.03300). `beta`: of the KL divergence from
    the model as it was; `loss`: of TRL, such as grpo, dapo or dr_grpo. Replies are drawn by transformers, or on a GPU by vLLM
    in the same process where `vllm` is true, and go into the store under the name of the run and the step."""

    samples: int
    temperature: float
    beta: float
    loss: str
    vllm: bool

    needs_rewards: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sampling(self.samples, self.temperature)
        if self.batch_size % self.samples:
            raise UserError(
                f"tuner.batch_size={self.batch_size}: replies a step, a multiple of tuner.samples={self.samples} is needed"
            )

    def check(self, cases: Sequence[Case], rewards: Rewards) -> None:
        super().check(cases, rewards)
        if joint := [name for name, part in rewards.parts.items() if part.together]:
            raise UserError(
                f"tuner=grpo draws replies to a few prompts a step, and reward={joint[0]} needs those to all prompts of a "
                "question together; give tuner=best_of or dpo"
            )

    def tune(self, work: Work) -> Any:
        prompts = [chat_ids(work.tokenizer, _request(case.written())) for case in work.cases]
        most = max(_request(case.written()).limit for case in work.cases)
        short = self.fitting(work, [len(prompt) + most for prompt in prompts], "prompts, with the longest reply,")
        cases, lengths = [work.cases[at] for at in short], [len(prompts[at]) for at in short]
        drawn = Drawn(work, cases, lengths, end_token(work.tokenizer), most, self.temperature)
        thinks = _request(cases[0].written()).reasoning
        options = {
            "num_generations": self.samples,
            "temperature": self.temperature,
            "max_completion_length": most,
            "beta": self.beta,
            "loss_type": self.loss,
            "use_vllm": self.vllm,
            "chat_template_kwargs": {} if thinks is None else {"enable_thinking": thinks},
            **({"vllm_mode": "colocate"} if self.vllm else {}),
        }
        chats = [accepted_chat(work.tokenizer, _request(case.written())) for case in cases]
        load = partial(work.base.loaded, self)
        try:
            model = trl_training.grpo(load, work.tokenizer, chats, drawn.rewards, options, self, work.checkpoints, work.report)
            drawn.refuse_failing()
            return model
        finally:
            drawn.close()


class Drawn:
    """Reads the replies that a trainer draws, as those of any call are read, keeps them in the store, and says their rewards.
    Replies of a step that is made again after a kill are kept beside those of before."""

    def __init__(
        self, work: Work, cases: Sequence[Case], prompts: Sequence[int], end: int, most: int, temperature: float
    ) -> None:
        self._work, self._cases, self._prompts = work, cases, prompts
        self._end, self._most, self._temperature = end, most, temperature
        self._store = Store(work.asked.store)
        self._numbers, self._last = {"replies": 0, "failed": 0}, ""

    def rewards(self, numbers: Sequence[int], replies: Sequence[list[int]], step: int) -> list[float]:
        """Of replies, as token ids, to the cases of these numbers. `step`: steps made before."""
        asked, decode = self._work.asked, self._work.tokenizer.decode
        rolled = []
        for number, ids in zip(numbers, replies, strict=True):
            case, ended = self._cases[number], len(ids) < self._most or ids[-1] == self._end
            text, outcome = decode(ids, skip_special_tokens=True), Outcome.OK if ended else Outcome.TRUNCATED
            reply = Reply(text, outcome, self._prompts[number], len(ids) - ended)
            rolled.append(Rolled(case, reply, asked.task.value(case, reply)))
            self._keep(case, reply, step, len(rolled))
        failed = sum(one.value is None for one in rolled)
        self._numbers["replies"] += len(rolled)
        self._numbers["failed"] += failed
        self._last = rolled[-1].reply.output
        self.refuse_failing(ENOUGH)
        each = self._work.asked.rewards.each(asked.task, asked.collection, rolled)
        means = {f"reward/{name}": sum(values) / len(values) for name, values in each.items()}
        self._work.report({**means, "reward/failed": failed / len(rolled)}, step + 1)  # that they are for
        return self._work.asked.rewards.total(each)

    def refuse_failing(self, least: int = 1) -> None:
        """UserError where `least` replies and more were drawn, and none can be read."""
        number = self._numbers["replies"]
        if number >= least and self._numbers["failed"] == number:
            raise UserError(
                f"none of {number} replies can be read, so there is nothing to learn from; the last: {self._last[:120]!r}. "
                "Use a model that follows the prompt, or tuner=sft first"
            )

    def _keep(self, case: Case, reply: Reply, step: int, place: int) -> None:
        call, model = case.written(self._temperature, place), f"{self._work.name}+step{step}"
        self._store.append(
            Record(
                key=_request(call).key_of(model, reply.outcome),
                collection=self._work.asked.collection.slug,
                query_id=case.question.id,
                doc_ids=call.doc_ids,
                stage=call.stage,
                template=call.template,
                template_hash=call.template_hash,
                layout=call.layout,
                model=model,
                engine="trl",
                output=reply.output,
                outcome=call.check(reply),
                tokens_in=reply.tokens_in,
                tokens_out=reply.tokens_out,
                time=time.time(),
            )
        )

    def close(self) -> None:
        self._store.close()


def _request(call: Call) -> Generate:
    if not isinstance(call.request, Generate):
        raise TypeError(type(call.request).__name__)
    return call.request
