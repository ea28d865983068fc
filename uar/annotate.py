"""Annotate a collection with an LLM: `python -m uar.annotate dataset=local dataset.path=DIR annotator=utilsel llm=openai`."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from uar.launch.entry import entry


def annotate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The annotate command, whose libraries are imported with the first job."""
    from uar.annotation import annotate_run

    return annotate_run.annotate(cfg, folder)


def main() -> None:
    entry("annotate", annotate)


if __name__ == "__main__":
    main()
