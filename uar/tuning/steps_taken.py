"""How a tuner learns: steps, learning rate, adapters."""

from dataclasses import dataclass
from typing import Any

from uar.errors import UserError

ALL, LINEAR = "all-linear", ("Linear", "Conv1D")
SCHEDULES = ("linear", "cosine", "constant_with_warmup")


@dataclass(frozen=True)
class Lora:
    """Adapters: weight + alpha / rank · B A (LoRA, arXiv 2106.09685), which alone learn. `rank`: None, all weights learn.
    `alpha`: None is 2 · rank. `adapter`: a folder of adapters to go on from, whose own rank, scale, dropout
    and targets hold."""

    rank: int | None = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: str | tuple[str, ...] | list[str] = ALL
    adapter: str | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise UserError(f"lora.rank={self.rank}: at least 1 is needed, or null, with which all weights learn")
        if self.rank is None and self.adapter:
            raise UserError("lora.rank=null: all weights learn, and no adapter; leave lora.adapter null")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout={self.dropout}: from 0 to below 1 is needed")
        for name in ("alpha", "dropout", "targets"):
            if (self.rank is None or self.adapter) and (given := getattr(self, name)) != getattr(Lora, name):
                why = "all weights learn, and no adapter" if self.rank is None else "that of lora.adapter holds"
                raise UserError(f"lora.{name}={given}: {why}; leave it as it is by default")

    def config(self, model: Any) -> Any:
        """Of new adapters, for peft; None where all weights learn, or adapters that are there already."""
        if self.rank is None or self.adapter:
            return None
        from peft import LoraConfig

        targets = [self.targets] if isinstance(self.targets, str) else list(self.targets)
        head = model.get_output_embeddings()  # TRL computes log-likelihoods past an adapter of it
        layers = {n.rpartition(".")[2] for n, m in model.named_modules() if type(m).__name__ in LINEAR and m is not head}
        if targets != [ALL] and not set(targets) <= layers:
            raise UserError(
                f"lora.targets={self.targets}: no such layers; allowed: {ALL}, or a list of {', '.join(sorted(layers))}"
            )
        return LoraConfig(
            r=self.rank,
            lora_alpha=2 * self.rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=ALL if targets == [ALL] else targets,
            fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),  # GPT-2's, (in, out)
            task_type="CAUSAL_LM",
        )


@dataclass(frozen=True)
class StepsTaken:
    """`batch_size`: prompts a step, `chunk` of which are in one forward and backward pass. `steps`: None is `epochs`.
    `warmup`: share of the steps. `precision`: auto | bf16 | fp32 | fp16."""

    lora: Lora
    learning_rate: float
    epochs: float
    steps: int | None
    batch_size: int
    chunk: int
    warmup: float
    scheduler: str
    weight_decay: float
    clip: float
    precision: str
    gradient_checkpointing: bool
    checkpoint_every: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "chunk", "checkpoint_every", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"tuner.{name}={value}: at least 1 is needed")
        if self.batch_size % self.chunk:
            raise UserError(f"tuner.batch_size={self.batch_size} is no multiple of tuner.chunk={self.chunk}; give one that is")
        if self.scheduler not in SCHEDULES:
            raise UserError(f"tuner.scheduler={self.scheduler!r}; allowed: {', '.join(SCHEDULES)}")
        if not 0 <= self.warmup < 1:
            raise UserError(f"tuner.warmup={self.warmup}: a share of the steps from 0 to below 1 is needed")
        if self.learning_rate <= 0 or self.epochs <= 0:
            raise UserError("tuner.learning_rate and tuner.epochs: numbers above 0 are needed")
