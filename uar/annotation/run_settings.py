"""What an annotate run folder says of its annotator and models, also one of an earlier version."""

from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from uar.annotation.annotators import Annotator
from uar.errors import DataError
from uar.llm.models import identity_of

MOVED = {  # places of classes in configs of earlier versions
    "uar.annotation.stages.": "uar.annotation.annotators.",
    "uar.annotation.engines.local.TransformersEngine": "uar.llm.models.transformers.Transformers",
    "uar.annotation.engines.openai.OpenAIEngine": "uar.llm.models.openai.OpenAI",
    "uar.annotation.engines.vllm.VLLMEngine": "uar.llm.models.vllm.VLLM",
    "uar.candidates.": "uar.pools.",
}


def run_settings(folder: Path) -> dict[str, Any]:
    """The plain config of a run."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise DataError(path, "no such file; give the folder of a run")
    config: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[assignment]
    return config


def run_config(folder: Path) -> dict[str, Any]:
    """The plain config of an annotate run, classes by their places of today."""
    config = run_settings(folder)
    if not {"annotator", "llm", "candidates"} <= set(config):
        raise DataError(folder / "config.yaml", "not of an annotate run; give the folder of one")
    return _moved(config)


def annotator_of(config: dict[str, Any]) -> tuple[Annotator, list[str]]:
    """The annotator of a run's config, and the names in records of the models that it asked."""
    annotator: Annotator = hydra.utils.instantiate(config["annotator"], _convert_="all")
    llms = [config["llm"], *config.get("llms", {}).values()]
    return annotator, [identity_of(llm) for llm in llms] if annotator.needs_llm else []


def _moved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _place(below) if key == "_target_" else _moved(below) for key, below in value.items()}
    return [_moved(below) for below in value] if isinstance(value, list) else value


def _place(target: Any) -> Any:
    old = next((old for old in MOVED if str(target).startswith(old)), None)
    return target if old is None else MOVED[old] + target.removeprefix(old)
