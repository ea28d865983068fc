"""Which queries get human labels."""

from collections.abc import Sequence

from uar.errors import UserError
from uar.ranking import rank_of


def nested_sample(query_ids: Sequence[str], fraction: float, seed: int) -> list[str]:
    """A random `fraction` of the queries, in their given order. A smaller fraction of the same seed is a subset of a larger
    one, on any machine."""
    if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        raise UserError(f"human_frac={fraction}: a share from 0 to 1 is needed, such as human_frac=0.2")
    keep = round(fraction * len(query_ids))
    chosen = set(sorted(query_ids, key=lambda q: rank_of(seed, "human", q))[:keep])
    return [q for q in query_ids if q in chosen]
