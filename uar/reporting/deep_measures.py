"""Measures that tables leave out, since they look too deep into the corpus of the runs."""

from collections.abc import Sequence

from uar.evaluation import depth
from uar.reporting.rows import Row


def too_deep(rows: Sequence[Row], slug: str, measure: str, most: float) -> str:
    """As `uar.evaluation.depth.too_deep` says it of the smallest corpus that a row has; empty where no size is known."""
    sizes = {run.manifest.get("passages", {}).get(slug) for row in rows for run in row.folders} - {None}
    return depth.too_deep(slug, measure, min(sizes), most) if sizes else ""
