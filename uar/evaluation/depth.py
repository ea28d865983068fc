"""Measures that look so deep into a small corpus that they say little."""

import re

RECALL = re.compile(r"(?:R|Recall|Success|Hit)(?:\(.*\))?@(\d+)")  # what counts passages in the top and not their places
DEEPEST = 0.05  # share of the passages; conf/report.yaml has it as `deepest`


def too_deep(slug: str, measure: str, passages: int, most: float = DEEPEST) -> str:
    """In words, where a measure that counts what is in the top looks at more than the share `most` of the passages of a
    collection: a random order has it at that share. Empty where it does not."""
    depth = RECALL.fullmatch(measure)
    if depth is None or int(depth[1]) <= most * passages:
        return ""
    return f"{slug}: {measure} is left out, as it looks at {min(int(depth[1]) / passages, 1):.0%} of the {passages:,} passages"
