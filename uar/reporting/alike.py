"""Whether runs were measured alike: on the same content of a collection, with the same lengths, precision and depth."""

from collections.abc import Iterable, Sequence
from typing import Any

from uar.collections.presets import whole_sets
from uar.reporting.rows import Row
from uar.reporting.run_folders import RunFolder


def unlike(rows: Sequence[Row], slug: str) -> str:
    """What differs between the runs of the rows that have scores of a collection, in words; empty where nothing is known to.
    A run that does not say, such as the lengths of BM25, differs from none."""
    there = [(row, run) for row in rows for run in row.folders if slug in run.slugs]
    facts = [(row.name, _measured(run, slug)) for row, run in there]
    said = []
    for name in dict.fromkeys(name for _, of_run in facts for name in of_run):
        by_value: dict[Any, dict[str, None]] = {}
        for row, of_run in facts:
            if name in of_run:
                by_value.setdefault(of_run[name], {})[row] = None
        if len(by_value) > 1:
            hidden = name.startswith("content")  # a hash says nothing to a reader
            said.append(name + ("" if hidden else f" ({_by_row(by_value.items())})"))
    return "; ".join(said)


def _measured(run: RunFolder, slug: str) -> dict[str, Any]:
    hashes = run.manifest.get("collections") or {}
    parts = whole_sets(run.slugs).get(slug, [slug])
    content = {"content" if part == slug else f"content of {part}": hashes[part] for part in parts if part in hashes}
    return {**content, **{name.replace("_", " "): value for name, value in (run.manifest.get("measured") or {}).items()}}


def _by_row(values: Iterable[tuple[Any, Iterable[str]]]) -> str:
    return ", ".join(f"{value}: {' and '.join(names)}" for value, names in values)


def notes_of(rows: Sequence[Row]) -> list[str]:
    """A note a collection that the rows were not measured alike on."""
    slugs = dict.fromkeys(slug for row in rows for slug in row.slugs)
    return [f"{s}: not measured alike, so nothing is bold or underlined: {said}" for s in slugs if (said := unlike(rows, s))]
