"""Make a corpus of a folder of text files: `python -m uar.corpus texts=DIR out=DIR`."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from uar.collections.text_files import write_corpus
from uar.launch.entry import entry

log = logging.getLogger(__name__)


def corpus(cfg: DictConfig, folder: Path) -> int:
    """Write `corpus.jsonl` into `out` and return the number of passages."""
    number = write_corpus(Path(cfg.texts), Path(cfg.out), cfg.words)
    log.info(
        "%d passages in %s; next: python -m uar.annotate dataset=local dataset.path=%s questions=generate",
        number, Path(cfg.out) / "corpus.jsonl", cfg.out,
    )  # fmt: skip
    return number


def main() -> None:
    entry("corpus", corpus)


if __name__ == "__main__":
    main()
