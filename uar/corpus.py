"""Make a corpus of a folder of text files: `python -m uar.corpus texts=DIR out=DIR`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from uar.collections.text_files import write_corpus
from uar.launch.entry import entry
from uar.launch.override_text import typed

log = logging.getLogger(__name__)


def corpus(cfg: DictConfig, folder: Path) -> int:
    """Write `corpus.jsonl` into `out`, say what was left out, and return the number of passages."""
    out = Path(cfg.out)
    summary = write_corpus(Path(cfg.texts), out, cfg.words, cfg.min_words, cfg.near_copy, cfg.encoding)
    words = summary["words"]
    log.info(
        "%d passages of %d files in %s, of %d to %d words (median %d)",
        summary["passages"], summary["files"], out / "corpus.jsonl", words["least"], words["most"], words["median"],
    )  # fmt: skip
    if summary["left_out"]:
        log.info("Left out: %s; see %s", _counted(summary["left_out"]), out / "left_out.jsonl")
    if summary["encodings"]:
        found = ", ".join(f"{name} ({encoding})" for name, encoding in summary["encodings"].items())
        log.warning("%d files are not UTF-8 and were read as what fits them best: %s", len(summary["encodings"]), found)
    if summary["nuls"]:
        found = ", ".join(f"{name} ({nuls})" for name, nuls in summary["nuls"].items())
        log.warning("NUL signs, which no text has, were taken out of %d files: %s", len(summary["nuls"]), found)
    if summary["files_of_other_kinds"]:
        log.info("Files of other kinds, which are not read: %s", _counted(summary["files_of_other_kinds"]))
    choices = {"dataset": "local", "dataset.path": str(out), "questions": "generate"}
    log.info("Next: %s", typed("annotate", choices))
    return int(summary["passages"])


def _counted(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())


def main() -> None:
    entry("corpus", corpus)


if __name__ == "__main__":
    main()
