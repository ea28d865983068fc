"""`python -m uar.validate 'labels=[A.tsv,B.tsv]' 'runs=outputs/annotate/*'`: annotators against people and each other."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from uar.launch.entry import entry


def validate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The validate command, whose libraries are imported when it runs."""
    from uar.evaluation.validation import validation_run

    return validation_run.validate(cfg, folder)


def main() -> None:
    entry("validate", validate)


if __name__ == "__main__":
    main()
