"""Annotate a collection with an LLM: `python -m uar.annotate dataset=local dataset.path=DIR annotator=utilsel llm=openai`."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from uar.launch.entry import entry
from uar.launch.other_commands import train_command

log = logging.getLogger("uar.annotate")


def annotate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The annotate command, whose libraries are imported with the first job."""
    from uar.annotation import annotate_run
    from uar.collections.beir import splits_of

    spent = annotate_run.annotate(cfg, folder)
    if not cfg.dry_run:
        questions = spent.get("questions", {}).get("folder")
        place = questions or cfg.dataset.path
        command = train_command(cfg, questions, None if place is None else splits_of(Path(place)))
        log.info("Train on these labels with: %s", command)
    return spent


def main() -> None:
    entry("annotate", annotate)


if __name__ == "__main__":
    main()
