"""Annotators that show a guideline: the text by which people label, in the system turn of each call."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from uar.annotation.annotators.annotator import Annotator
from uar.errors import DataError
from uar.llm.prompted import Chatting, OnePrompt
from uar.llm.prompts import ChatPrompt
from uar.storage.files import digest


@dataclass(frozen=True)
class Guided(Chatting, Annotator):
    """`guideline`: a text file, read when the annotator is made. What it says tells its calls from others, its name does not
    (content in the system turn did best in SILICON, arXiv 2412.14461)."""

    guideline: str | None = field(default=None, kw_only=True)

    @cached_property
    def guidance(self) -> str:
        """The text; empty where there is none."""
        return "" if self.guideline is None else read_guideline(Path(self.guideline))

    def asks(self) -> dict[str, Any]:
        own = super().asks()
        return own | {"guideline": digest(self.guidance)} if self.guidance else own


@dataclass(frozen=True)
class GuidedPrompt(Guided, OnePrompt):
    """With one prompt of its own."""

    @cached_property
    def prompt(self) -> ChatPrompt:
        return super().prompt.with_guideline(self.guidance)


def read_guideline(path: Path) -> str:
    """DataError where there is no such file, or nothing in it, or it is not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(path, f"annotator.guideline: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise DataError(
            path, f"annotator.guideline: {why}; give a text file, such as the guideline that people had"
        ) from error
    if not text:
        raise DataError(path, "annotator.guideline: an empty file; write the guideline into it, or leave the option out")
    return text
