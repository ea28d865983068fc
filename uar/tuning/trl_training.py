"""Training by TRL: its trainers with what the rows, rewards and files of a run give them. TRL is imported here alone, when it
is needed: the trainer of GRPO brings vLLM where that is installed."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback

from uar.errors import UserError
from uar.launch.bars import bar
from uar.machine.precision import bf16_is_fast, device
from uar.tuning.cpu_training import attend_fast, logits_at, shared_tokens
from uar.tuning.steps_taken import StepsTaken
from uar.tuning.token_rows import TokenRow

log = logging.getLogger(__name__)
IGNORED = -100  # label of a token that is not learned
STATE = "trainer_state.json"  # the last file of a checkpoint that is written
NO_MEMORY = ("out of memory", "can't allocate memory", "DefaultCPUAllocator", "bad_alloc")
Load = Callable[[], Any]
Report = Callable[[Mapping[str, float], int], None]  # numbers, step; no numbers: what was told is to be kept


def sft(load: Load, tokenizer: Any, rows: Sequence[TokenRow], taken: StepsTaken, folder: Path, report: Report) -> Any:
    """The model that `load` gives after it learned the replies of the rows; the loss is that of their tokens alone."""
    from trl import SFTConfig, SFTTrainer

    class OfReplies(SFTTrainer):
        """On a CPU, where TRL has no Triton, it computes the logits of each place of a batch: those of replies are a fraction
        of them. What all prompts of a batch begin with is computed once. The loss is the same."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            if self.accelerator.device.type != "cpu" or not cuts or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels = inputs["labels"][:, 1:]
            places = (labels != IGNORED).any(0).nonzero()[:, 0]
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            shared = 0 if taken.gradient_checkpointing else shared_tokens(ids, int(places[0]))
            logits = logits_at(model, ids, mask, places, shared).float()
            wanted = labels[:, places]
            count = (wanted != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
            return cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum") / count

    content = [
        {"input_ids": row.prompt + row.reply, "labels": [IGNORED] * len(row.prompt) + row.reply, "length": len(row)}
        for row in rows
    ]
    model = load()
    lengths = {"max_length": None, "train_sampling_strategy": "group_by_length", "length_column_name": "length"}
    arguments = _config(SFTConfig, taken, folder, **lengths)
    cuts = "logits_to_keep" in signature(type(model).forward).parameters
    if cuts and device().type == "cpu":
        attend_fast(model, taken.chunk * max(map(len, rows)) ** 2)
    trainer = OfReplies(
        model, arguments, train_dataset=_dataset(content), processing_class=tokenizer, peft_config=taken.lora.config(model)
    )
    return _trained(trainer, report)


def dpo(
    load: Load,
    tokenizer: Any,
    pairs: Sequence[tuple[TokenRow, TokenRow]],
    beta: float,
    taken: StepsTaken,
    folder: Path,
    report: Report,
) -> Any:
    """The model after it learned to prefer the first reply of each pair to the second (arXiv 2305.18290)."""
    from trl import DPOConfig, DPOTrainer

    class OfTokens(KeepsWhatLearns, DPOTrainer):
        """Its rows are token ids already, as the model is asked later."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    model = load()
    content = [{"prompt_ids": a.prompt, "chosen_ids": a.reply, "rejected_ids": b.reply} for a, b in pairs]
    arguments = _config(DPOConfig, taken, folder, max_length=None, beta=beta)
    trainer = OfTokens(
        model,
        args=arguments,
        train_dataset=_dataset(content),
        processing_class=tokenizer,
        peft_config=taken.lora.config(model),
    )
    return _trained(trainer, report)


def grpo(
    load: Load,
    tokenizer: Any,
    chats: Sequence[list[dict[str, str]]],
    reward: Callable[[Sequence[int], Sequence[list[int]], int], list[float]],
    options: Mapping[str, Any],
    taken: StepsTaken,
    folder: Path,
    report: Report,
) -> Any:
    """The model after GRPO (arXiv 2402.03300). `chats`: a prompt each; `reward`: of the numbers of prompts, the token ids of
    replies to them, and the step; `options`: of TRL's config."""
    with warnings.catch_warnings():  # of versions of vLLM, which is not asked here
        warnings.filterwarnings("ignore", "TRL currently supports vLLM")
        from trl import GRPOConfig, GRPOTrainer

    class OfReplies(KeepsWhatLearns, GRPOTrainer):
        pass

    def rewarded(completion_ids: list[list[int]], case: list[int], trainer_state: Any, **_: Any) -> list[float]:
        return reward(case, completion_ids, int(trainer_state.global_step))

    arguments = _config(GRPOConfig, taken, folder, **options)
    model = load()
    content = [{"prompt": chat, "case": at} for at, chat in enumerate(chats)]
    trainer = OfReplies(
        model,
        rewarded,
        args=arguments,
        train_dataset=_dataset(content),
        processing_class=tokenizer,
        peft_config=taken.lora.config(model),
    )
    return _trained(trainer, report)


def whole_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end; those that a kill cut short are removed."""
    found: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        try:
            found.append((int(json.loads((path / STATE).read_text())["global_step"]), path))
        except (OSError, ValueError, KeyError):
            shutil.rmtree(path, ignore_errors=True)
    return max(found)[1] if found else None


class KeepsWhatLearns:
    """Of a trainer: its checkpoints hold the adapters that learn. TRL adds a copy of those that a run goes on from, to compare
    with; where it is kept, transformers loads it alone when the run is resumed."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        from peft import PeftModel

        super()._save(output_dir, state_dict)  # type: ignore[misc]
        model, place = self.model, Path(output_dir or self.args.output_dir)  # type: ignore[attr-defined]
        if isinstance(model, PeftModel):
            for name in model.peft_config.keys() - set(model.active_adapters):
                shutil.rmtree(place / name)


class Reporting(TrainerCallback):
    """Hands numbers on, and moves a bar."""

    def __init__(self, report: Report, shown: Any) -> None:
        self._report, self._shown = report, shown

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._shown.total = state.max_steps
        self._shown.at(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._report({}, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        numbers = {f"train/{name}": float(v) for name, v in (logs or {}).items() if isinstance(v, int | float)}
        if numbers:
            self._report(numbers, state.global_step)


def _config(kind: Any, taken: StepsTaken, folder: Path, **own: Any) -> Any:
    """Of a trainer: what it has like the others, and its own."""
    on_gpu = device().type == "cuda"
    fast = taken.precision == "bf16" or (taken.precision == "auto" and bf16_is_fast())
    shared = {
        "output_dir": str(folder),
        "per_device_train_batch_size": taken.chunk,
        "gradient_accumulation_steps": taken.batch_size // taken.chunk,
        "learning_rate": taken.learning_rate,
        "lr_scheduler_type": taken.scheduler,
        "warmup_steps": taken.warmup,
        "weight_decay": taken.weight_decay,
        "max_grad_norm": taken.clip,
        "num_train_epochs": taken.epochs,
        "max_steps": taken.steps or -1,
        "gradient_checkpointing": taken.gradient_checkpointing,
        "bf16": fast,
        "fp16": taken.precision == "fp16",
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "save_steps": taken.checkpoint_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_first_step": True,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": taken.seed,
    }
    config = kind(**shared, **own)
    if (seen := torch.cuda.device_count()) > 1 and config.n_gpu > 1:
        log.info("%d GPUs are seen; one of them tunes", seen)
        config._n_gpu = 1  # on several the trainer would copy the model, which TRL refuses
    return config


def _dataset(rows: Sequence[Mapping[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([dict(row) for row in rows])


def _trained(trainer: Any, report: Report) -> Any:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    last = whole_checkpoint(Path(trainer.args.output_dir))
    if last is not None:
        log.info("Going on from %s", last)
    with bar("Tuning", None, "steps") as shown:
        trainer.add_callback(Reporting(report, shown))
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    return trainer.model


@contextmanager
def memory_told(chunk: int) -> Iterator[None]:
    """UserError where the block runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(part in str(error) for part in NO_MEMORY):
            raise
        raise UserError(
            f"out of memory with tuner.chunk={chunk}: give a smaller tuner.chunk, tuner.gradient_checkpointing=true, or "
            "shorter prompts"
        ) from error
