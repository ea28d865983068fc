"""`misleading.jsonl` beside a collection: texts that look as if they described a passage, and are false."""

from collections.abc import Iterable
from pathlib import Path

from uar.storage.files import write_jsonl
from uar.storage.lines import read_id, read_jsonl, read_string

MISLEADING = "misleading.jsonl"


def write_misleading(folder: Path, texts: Iterable[tuple[str, str]]) -> None:
    """(passage id, text) pairs; a pair that stands there twice is written once."""
    write_jsonl(folder / MISLEADING, ({"doc_id": doc_id, "text": text} for doc_id, text in dict.fromkeys(texts)))


def read_misleading(path: Path) -> dict[str, list[str]]:
    """By passage id. DataError names a faulty line."""
    found: dict[str, list[str]] = {}
    for number, row in read_jsonl(path):
        found.setdefault(read_id(path, number, row, "doc_id"), []).append(read_string(path, number, row, "text"))
    return found
