"""Guidelines of a run: kept in its folder, and compared with those of earlier runs and with their files at its end."""

import logging
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from uar.annotation.annotation import Asked
from uar.annotation.annotators import Annotator
from uar.annotation.annotators.guided import Guided, read_guideline
from uar.annotation.selection import Annotations
from uar.errors import UserError
from uar.storage.files import digest, write_text

log = logging.getLogger(__name__)
COPY = "guideline{}.txt"  # in the run folder


def keep_guidelines(folder: Path, annotator: Annotator) -> None:
    """What the calls of the run show, as files."""
    for number, text in enumerate(dict.fromkeys(one.guidance for one in _guided(annotator)), start=1):
        write_text(folder / COPY.format("" if number == 1 else f"-{number}"), text + "\n")


def compare_guidelines(annotations: Annotations, asked: Asked) -> None:
    """Warn where the last run of the same annotator and models on this corpus had another guideline: none of its replies
    answers a call of this one."""
    mine = asked.annotator.asks()
    for _, about in reversed(annotations.placed(asked.collection.corpus.hash)):
        if about["models"] == list(asked.models) and digest(_without(about["annotator"])) == digest(_without(mine)):
            if digest(about["annotator"]) != digest(mine):
                folder = about["run"].get("folder") or "an earlier run"
                log.warning(
                    "The guideline differs from that of %s: its replies are kept and answer none of these calls", folder
                )
            return


def compare_with_files(annotator: Annotator) -> None:
    """Warn where a guideline's file was changed while the run went on."""
    for path, text in {one.guideline: one.guidance for one in _guided(annotator)}.items():
        try:
            same = read_guideline(Path(str(path))) == text
        except UserError:
            same = False
        if not same:
            line = "annotator.guideline=%s was changed while the run went on: all labels are by the text that it began with"
            log.warning(line, path)


def _guided(annotator: Annotator) -> Iterator[Guided]:
    """The annotator, and those that it is made of, that have a guideline."""
    if isinstance(annotator, Guided) and annotator.guideline is not None:
        yield annotator
    for option in fields(annotator):
        if isinstance(value := getattr(annotator, option.name), Annotator):
            yield from _guided(value)


def _without(asks: Any) -> Any:
    return {k: _without(v) for k, v in asks.items() if k != "guideline"} if isinstance(asks, dict) else asks
