"""`python -m uar.tune task=answer tuner=sft`: an LLM is tuned for a prompt that is asked elsewhere in the package."""

from pathlib import Path

from omegaconf import DictConfig

from uar.launch.entry import entry


def tune(cfg: DictConfig, folder: Path) -> float | None:
    """The tuning, whose libraries are imported with the first job."""
    from uar.tuning import tune_run

    return tune_run.tune(cfg, folder)


def main() -> None:
    entry("tune", tune)


if __name__ == "__main__":
    main()
