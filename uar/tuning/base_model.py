"""The model whose weights are tuned, and how it is opened."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uar.errors import MissingModel, UserError
from uar.machine.model_files import (
    Base,
    base_of,
    cached_folder,
    identity,
    locate,
    merged_with,
    pretrained,
    why_not_loaded,
    without_bars,
)
from uar.machine.precision import resolve_dtype
from uar.tuning.steps_taken import StepsTaken

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseModel:
    """`reference`: see `locate`; `revision`: of one on the hub."""

    reference: str
    revision: str | None

    @property
    def name(self) -> str:
        """As `identity` has it."""
        return identity(self.reference, self.revision)

    def at_first(self, adapter: str | None) -> dict[str, Any]:
        """Options of a config that asks the model as it is before it learns, with the adapters that it goes on from. UserError
        for adapters of another model."""
        if adapter is None:
            return {"model": self.reference, "revision": self.revision}
        made_on = _base_of(self, adapter)
        as_made = (made_on.reference, made_on.revision) == (self.reference, self.revision)
        return {"model": adapter if as_made else merged_with(adapter, self.reference, self.revision), "revision": None}

    def loaded(self, taken: StepsTaken) -> Any:
        """The model that learns, with the adapters that it goes on from, where there are any. Where adapters alone learn, its
        own weights stay in the format that computes fast, else they are in 32 bits. UserError where it cannot be loaded."""
        from transformers import AutoModelForCausalLM

        without_bars()
        torch.manual_seed(taken.seed)  # of new adapters, whatever was drawn before
        dtype = resolve_dtype(taken.precision) if taken.lora.rank else torch.float32
        try:
            model = pretrained(AutoModelForCausalLM, locate(self.reference), revision=self.revision, dtype=dtype)
        except Exception as error:  # what a loader raises over a broken folder depends on where it trips
            raise MissingModel(f"model {self.reference}: to be tuned it {why_not_loaded(self.reference, error)}") from error
        if (folder := cached_folder(self.reference, self.revision)) is not None:
            model.name_or_path = model.config.name_or_path = str(folder)  # TRL loads what it compares with by the name alone
        return _with_adapter(model, self, taken.lora.adapter) if taken.lora.adapter else model

    def tokenizer(self) -> Any:
        """A new one each time, since trainers change what they are given."""
        from transformers import AutoTokenizer

        try:
            return pretrained(AutoTokenizer, locate(self.reference), revision=self.revision)
        except (OSError, ValueError) as error:
            raise UserError(f"model {self.reference}: no tokenizer can be loaded ({_line(error)})") from error

    def dtype(self) -> torch.dtype:
        """Of its weights in their files."""
        known = getattr(self._config(), "dtype", None)
        return known if isinstance(known, torch.dtype) else torch.float32

    def positions(self) -> int | None:
        """Tokens that it has places for; None where there is no end."""
        found = getattr(self._config(), "max_position_embeddings", None)
        return int(found) if found else None

    def _config(self) -> Any:
        from transformers import AutoConfig

        return pretrained(AutoConfig, locate(self.reference), revision=self.revision).get_text_config()


def _base_of(own: BaseModel, adapter: str) -> Base:
    base = base_of(Path(adapter))
    if base.made_on not in (None, own.name):
        remedy = "tune new ones" if base.reference == own.reference else f"give base={base.reference}"
        raise UserError(f"lora.adapter={adapter}: adapters of {base.made_on}, not of {own.name}; {remedy}")
    return base


def _with_adapter(model: Any, own: BaseModel, adapter: str) -> Any:
    from peft import PeftModel

    base = _base_of(own, adapter)
    try:
        found = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"lora.adapter={adapter}: it was made for {base.reference} and does not fit {own.reference} "
            f"({_line(error)}); give base={base.reference}"
        ) from error
    if base.made_on is None and base.reference != own.reference:
        line = "lora.adapter=%s was made for %s, and goes on with %s, whose layers are as large"
        log.warning(line, adapter, base.reference, own.reference)
    for config in found.peft_config.values():
        config.base_model_name_or_path = locate(own.reference)  # where peft finds its files when it keeps a checkpoint
    return found


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
