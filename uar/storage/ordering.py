"""Two orders that hold everywhere: how hits are ranked, and how things are shuffled by a seed."""

import hashlib
from collections.abc import Iterable

Hit = tuple[str, float]  # passage id, score


def best_first(hits: Iterable[Hit]) -> list[Hit]:
    """Score descending, then passage id."""
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def rank_of(seed: int, *names: str) -> bytes:
    """A pseudo-random sort key that depends on (seed, names) alone: the same on any machine and in any order of calls."""
    return hashlib.blake2b("\x1f".join([str(seed), *names]).encode("utf-8", "surrogatepass"), digest_size=16).digest()
