"""Train a retriever: `python -m uar.train label_source=mixed human_frac=0.2`."""

from pathlib import Path

from omegaconf import DictConfig

from uar.launch.entry import entry


def train(cfg: DictConfig, folder: Path) -> float | None:
    """The train command. torch, Lightning and transformers are imported with the first job."""
    from uar.training import train_run

    return train_run.train(cfg, folder)


def main() -> None:
    entry("train", train)


if __name__ == "__main__":
    main()
