"""`python -m uar.hybrid collection=local:DIR:test 'runs=[A.trec,B.trec]' depth=20 annotator=utilsel llm=openai ...`."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from uar.launch.entry import entry


def hybrid(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The hybrid test, whose libraries are imported with the first job."""
    from uar.evaluation import hybrid_test

    return hybrid_test.hybrid(cfg, folder)


def main() -> None:
    entry("hybrid", hybrid)


if __name__ == "__main__":
    main()
