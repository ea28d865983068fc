"""A tiny chat model, and the tune command in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted import Scripted
from tiny_models import EOS, _bytes, tiny_causal
from transformers import LlamaConfig

from uar.launch.entry import composed
from uar.llm.record import Reply, Request
from uar.tune import tune
from uar.tuning import trl_training

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
