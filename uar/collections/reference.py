"""References: one string names a collection anywhere (`mini:test`, `local:DIR:test`, `irds:beir/scifact/test`)."""

import re
from collections.abc import Sequence
from pathlib import Path

from uar.errors import UserError

MINI = Path(__file__).parent / "mini"
FORMS = "mini:SPLIT, local:DIR:SPLIT or irds:ID"
PRESETS = "presets such as beir, msmarco and beir-scifact"


def parse(reference: str) -> tuple[str, str, str]:
    """(kind, place, split); UserError where the string has none of the three forms."""
    kind, _, rest = str(reference).partition(":")
    if kind == "mini" and rest:
        return kind, str(MINI), rest
    if kind == "local" and ":" in rest:
        place, _, split = rest.rpartition(":")
        if place and split:
            return kind, place, split
    if kind == "irds" and rest:
        return kind, rest, ""
    raise UserError(f"collection {reference!r} is not understood; allowed: {FORMS}, and in lists {PRESETS}")


def slug(reference: str) -> str:
    """A reference as it stands in file names: mini.test, wiki_openqa.test, beir-scifact-test."""
    kind, place, split = parse(reference)
    if kind == "irds":
        return _file_name(place)
    return _file_name(f"{'mini' if kind == 'mini' else Path(place).resolve().name}.{split}")


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name)


def corpus_file(reference: str) -> Path | None:
    """The corpus.jsonl behind a reference, where it is one."""
    kind, place, _ = parse(reference)
    return None if kind == "irds" else Path(place) / "corpus.jsonl"


def resolve(value: str | None, path: str | None) -> str | None:
    """A dataset option as a reference: a bare split name belongs to the folder `path`; null stays null."""
    if value is None or ":" in value:
        return value
    if path is None:
        raise UserError(f"dataset split {value!r} needs dataset.path; or give a whole reference: {FORMS}")
    return f"local:{path}:{value}"


def distinct_slugs(references: Sequence[str]) -> None:
    """UserError where two references would write the same file names."""
    seen: dict[str, str] = {}
    for reference in references:
        other = seen.setdefault(slug(reference), reference)
        if other != reference:
            raise UserError(f"{other} and {reference} share the file name {slug(reference)!r}; evaluate them in two runs")
