"""A tiny chat model, and the tune command in this process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from scripted import Scripted
from tiny_models import EOS, _bytes, tiny_causal
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from uar.collections import Collection
from uar.launch.entry import composed
from uar.llm.models.tokens import chat_ids, text_ids
from uar.llm.record import Generate, Reply, Request
from uar.tune import tune
from uar.tuning import trl_training
from uar.tuning.reward import Reward
from uar.tuning.task import Case, Rolled, Task

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
SAYS: list[Callable[[Request], Reply | str]] = []  # the last one answers
ASKED: list[Request] = []
OPENED: list[str] = []  # models that were asked, in turn
FAST = ["tuner.steps=2", "tuner.batch_size=2", "tuner.chunk=2", "tuner.precision=fp32", "tuner.max_length=null", "logger=none"]


class Writer(Scripted):
    """As a config names it."""

    def __init__(self, model: str) -> None:
        OPENED.append(model)
        super().__init__(lambda request: SAYS[-1](request))

    def submit(self, ticket: int, request: Request) -> None:
        ASKED.append(request)
        super().submit(ticket, request)


def tiny_chat(folder: Path, **options: Any) -> str:
    """Of a token a byte, with a chat template."""
    tokenizer = _bytes(chat_template=CHAT, eos_token=EOS)
    size = {"num_hidden_layers": 2, "max_position_embeddings": 8192}
    return tiny_causal(folder, LlamaConfig, tokenizer, **{**size, **options})


def log_probability(model: str | Path, request: Request, reply: str) -> float:
    """Of a reply and its end to a prompt, in 32 bits."""
    tokenizer, own = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    assert isinstance(request, Generate)
    prompt, ids = chat_ids(tokenizer, request), text_ids(tokenizer, reply) + [tokenizer.eos_token_id]
    with torch.no_grad():
        logits = own(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1)[range(len(ids)), ids].sum())


def preferred(model: str | Path, request: Request, better: str, worse: str) -> float:
    """By how many nats a model prefers a reply to another one."""
    return log_probability(model, request, better) - log_probability(model, request, worse)


def ascii_begins(model: str | Path, request: Request) -> float:
    """The probability that a reply begins with a character of ASCII."""
    tokenizer, own = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    assert isinstance(request, Generate)
    wanted = [token for token in range(len(tokenizer)) if tokenizer.decode([token]).isascii()]
    with torch.no_grad():
        return float(own(torch.tensor([chat_ids(tokenizer, request)])).logits[0, -1].softmax(-1)[wanted].sum())


class Ascii(Reward):
    """The share of characters of ASCII, which a model of random weights writes about half of the time."""

    def check(self, task: Task, collection: Collection, cases: Sequence[Case]) -> None:
        return None

    def values(self, task: Task, collection: Collection, rolled: Sequence[Rolled]) -> list[float]:
        return [sum(c.isascii() for c in one.value) / len(one.value) for one in rolled]


@contextmanager
def stopped_after(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tuning in the block is interrupted as the next step ends, and leaves the checkpoint of this one."""
    told = trl_training.Reporting.on_step_end

    def stop(self: object, args: object, state: Any, control: object, **kwargs: object) -> None:
        if state.global_step == step + 1:
            raise KeyboardInterrupt
        told(self, args, state, control, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(trl_training.Reporting, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            yield


def tuned(folder: Path, model: str, out: Path, *options: str, scripted: bool = False) -> float | None:
    """`folder`: a collection. Where `scripted`, `SAYS` writes the rollouts, and the replies of the dev split."""
    llm = ["llm=transformers", f"llm.model={model}", "llm.dtype=fp32"]
    cfg = composed("tune", "dataset=local", f"dataset.path={folder}", *llm, f"name={out.name}", *FAST, *options)
    cfg.store = str(out.parent / "store")
    if scripted:
        cfg.base = cfg.base or model
        cfg.llm = {"_target_": "tuning_runs.Writer", "model": model}
    return tune(cfg, out)
