"""Which measure a figure shows, and its interval over questions."""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from uar.reporting.rows import Row

PREFERRED = {"msmarco-passage-dev-small": "RR@10"}


def shown_measure(rows: Sequence[Row]) -> tuple[str, str] | None:
    """(slug, measure) of the collection that most rows have scores of: nDCG@10, or MRR@10 of MS MARCO dev."""
    slugs = [slug for row in rows for slug in row.slugs if slug in row.first.metrics["retrieval"] or row.holding(slug)]
    if not slugs:
        return None
    slug = max(dict.fromkeys(slugs), key=lambda name: (slugs.count(name), name in PREFERRED))
    return slug, PREFERRED.get(slug, "nDCG@10")


def interval(row: Row, slug: str, measure: str, notes: list[str]) -> tuple[float, float] | None:
    """95 % interval of the mean over questions (Student's t) of the seeds' mean; None where no values a question are kept."""
    values = np.array(list(row.scores(slug, notes).get(measure, {}).values()))
    if len(values) < 2:
        return None
    margin = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - margin, float(values.mean()) + margin
