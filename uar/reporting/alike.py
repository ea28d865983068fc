"""Whether runs were measured alike: on the same content of a collection, with the same lengths, precision and depth."""

from collections.abc import Sequence

from uar.collections.presets import whole_sets
from uar.evaluation.measured import differences, measured_on
from uar.reporting.rows import Row


def unlike(rows: Sequence[Row], slug: str) -> str:
    """What differs between the runs of the rows that have scores of a collection, in words."""
    there = [(row, run) for row in rows for run in row.folders if slug in run.slugs]
    return differences((row.name, measured_on(run.manifest, slug, whole_sets(run.slugs).get(slug, ()))) for row, run in there)


def notes_of(rows: Sequence[Row]) -> list[str]:
    """A note a collection that the rows were not measured alike on."""
    slugs = dict.fromkeys(slug for row in rows for slug in row.slugs)
    return [f"{s}: not measured alike, so nothing is bold or underlined: {said}" for s in slugs if (said := unlike(rows, s))]
