"""`python -m uar.store`: the annotations of a store; `runs=GLOB` brings over the runs of an earlier version."""

from pathlib import Path

from omegaconf import DictConfig

from uar.launch.entry import entry


def store(cfg: DictConfig, folder: Path) -> int:
    """The store command, whose libraries are imported when it runs."""
    from uar.annotation import store_run

    return store_run.store(cfg, folder)


def main() -> None:
    entry("store", store)


if __name__ == "__main__":
    main()
