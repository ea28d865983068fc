"""Measures that look so deep into a small corpus that they say little."""

import re
from collections.abc import Sequence

from uar.reporting.rows import Row

RECALL = re.compile(r"(?:R|Recall|Success|Hit)(?:\(.*\))?@(\d+)")  # what counts passages in the top and not their places


def too_deep(rows: Sequence[Row], slug: str, measure: str, most: float) -> str:
    """In words, where a measure that counts what is in the top looks at more than the share `most` of the passages of a
    collection: a random order has it at that share. Empty where it does not, or their number is not known."""
    depth = RECALL.fullmatch(measure)
    sizes = {run.manifest.get("passages", {}).get(slug) for row in rows for run in row.folders} - {None}
    if depth is None or not sizes:
        return ""
    share = int(depth[1]) / min(sizes)
    if share <= most:
        return ""
    return f"{slug}: {measure} is left out, as it looks at {min(share, 1):.0%} of the {min(sizes):,} passages"
