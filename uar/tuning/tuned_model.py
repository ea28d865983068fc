"""The model folder that a run writes: weights with what was learned in them, tokenizer, card."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from uar.machine.model_files import name_base
from uar.storage.files import write_text
from uar.tuning.base_model import BaseModel

MODEL, ADAPTER = "model", "adapter"


def export(model: Any, base: BaseModel, folder: Path) -> None:
    """Write `model/` of a run folder whole or not at all, as transformers and vLLM load it: with adapters merged, in the
    format of the files that the weights came from. Adapters are kept in `adapter/` too, in this format, as peft and `locate`
    load them."""
    if hasattr(model, "merge_and_unload"):
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.to(base.dtype())

        def save_adapter(place: Path) -> None:
            learned = model.active_adapters  # and no copy of them as they were
            model.save_pretrained(place, selected_adapters=learned, save_embedding_layers=False)  # else peft asks the hub
            name_base(place, base.reference, base.revision)

        _whole(folder / ADAPTER, save_adapter)
        model = model.merge_and_unload()
    tokenizer = base.tokenizer()

    def save(place: Path) -> None:
        model.to(base.dtype()).save_pretrained(place)
        tokenizer.save_pretrained(place)

    _whole(folder / MODEL, save)


def _whole(folder: Path, save: Any) -> None:
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save(beside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)


def write_card(folder: Path, base: BaseModel, facts: Mapping[str, Any], scores: Mapping[str, Mapping[str, float]]) -> None:
    """`README.md` of a folder that `export` wrote: what the model was made from, for what, and what it is worth. `scores`: by
    model and reward."""
    on_hub = base.name.partition("@")[0] if "/" in base.name.partition("@")[0] else None
    front = {
        "library_name": "peft" if folder.name == ADAPTER else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["uar", facts["task"], facts["tuner"]],
        **({"base_model": on_hub} if on_hub else {}),
    }
    items = "\n".join(f"- {name.replace('_', ' ')}: `{value}`" for name, value in facts.items())
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    rows = [[model, *(f"{values[name]:.4f}" for name in names)] for model, values in scores.items()]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [["model", *names], ["---"] * (1 + len(names)), *rows])
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {base.name.partition('@')[0]} tuned for {facts['task']}",
        items,
        *([f"## Mean rewards of greedy replies\n\n{table}"] if scores else []),
        "## Use\n\nWherever an LLM is asked: `llm=transformers llm.model=FOLDER`, or `llm=vllm llm.model=FOLDER`.",
    ]
    write_text(folder / "README.md", "\n\n".join(parts) + "\n")
