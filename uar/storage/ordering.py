"""Two orders that hold everywhere: how hits are ranked, and how things are shuffled by a seed."""

import hashlib
from collections.abc import Iterable, Sequence

Hit = tuple[str, float]  # passage id, score


def best_first(hits: Iterable[Hit]) -> list[Hit]:
    """Score descending, then passage id."""
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def followed(first: Sequence[Hit], hits: Sequence[Hit]) -> list[Hit]:
    """`first`, and then those of `hits` that it lacks, in their order and with lower scores."""
    ids = {doc_id for doc_id, _ in first}
    lowest = min((score for _, score in first), default=0.0)
    rest = [doc_id for doc_id, _ in hits if doc_id not in ids]
    return [*first, *((doc_id, lowest - place) for place, doc_id in enumerate(rest, start=1))]


def rank_of(seed: int, *names: str) -> bytes:
    """A pseudo-random sort key that depends on (seed, names) alone: the same on any machine and in any order of calls."""
    return hashlib.blake2b("\x1f".join([str(seed), *names]).encode("utf-8", "surrogatepass"), digest_size=16).digest()
