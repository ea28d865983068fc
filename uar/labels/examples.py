"""What a query is learnt from: its positives and its negatives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Pair(NamedTuple):
    """A passage of a query: label 1 or 0, who said so, and its utility where there is one."""

    doc_id: str
    label: int
    source: str
    utility: float | None


@dataclass(frozen=True)
class Example:
    """A query with its positives (best first) and negatives; `source` says who called them so.

    `sources` and `utility` go with positives + negatives, one entry each, or are empty: all from `source`, no utilities.
    `ignored` are passages that may be positive and are not learnt from: never a negative of the query.
    `weight` is the query's in the loss, beside those of the other queries of its batch: 0 or more, 0 leaves the query out.
    """

    query_id: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    source: str
    sources: tuple[str, ...] = ()
    utility: tuple[float | None, ...] = ()
    ignored: tuple[str, ...] = ()
    weight: float = 1.0

    def pairs(self) -> Iterator[Pair]:
        """Positives, then negatives."""
        docs = self.positives + self.negatives
        sources = self.sources or (self.source,) * len(docs)
        for at, (doc_id, source) in enumerate(zip(docs, sources, strict=True)):
            yield Pair(doc_id, int(at < len(self.positives)), source, self.utility[at] if self.utility else None)

    def utilities(self) -> dict[str, float]:
        """Of the passages that have one."""
        return {p.doc_id: p.utility for p in self.pairs() if p.utility is not None} if self.utility else {}


def example_of(query_id: str, pairs: Sequence[Pair], source: str, ignored: Sequence[str] = (), weight: float = 1.0) -> Example:
    """An example of its pairs, positives before negatives, each in the order given."""
    ordered = sorted(pairs, key=lambda p: -p.label)
    positives = tuple(p.doc_id for p in ordered if p.label)
    return Example(
        query_id,
        positives,
        tuple(p.doc_id for p in ordered[len(positives) :]),
        source,
        tuple(p.source for p in ordered) if any(p.source != source for p in ordered) else (),
        tuple(p.utility for p in ordered) if any(p.utility is not None for p in ordered) else (),
        tuple(ignored),
        weight,
    )
