"""Why a question has no labels: what each annotation shows of it, and what was replied."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc

from uar.annotation.selection import Annotations, described
from uar.collections import Collection
from uar.errors import UserError
from uar.llm.record import Outcome
from uar.llm.store.upkeep import records_of
from uar.pools.stored_pools import StoredPools, question_hash

SHOWN = 80  # letters of a reply that failed


def why(annotations: Annotations, collection: Collection, query_id: str) -> Iterator[str]:
    """Lines on a question: one for each annotation of the collection's corpus, then one for each kind of replies. UserError
    for a question that the collection lacks."""
    if query_id not in collection.queries:
        raise UserError(f"question={query_id}: no question of {collection.reference}; give the id of one of its questions")
    found = annotations.placed(collection.corpus.hash)
    if not found:
        yield f"{collection.reference}: {annotations.held(collection)}"
    shown = False
    for folder, about in found:
        stored = StoredPools(folder)
        pool = stored.read({query_id: question_hash(collection, query_id)}).get(query_id)
        if pool is not None:
            said, shown = f"{len(pool.rows)} of its passages were shown", True
        elif query_id in stored.read():
            said = "asked with another text, image or other answers than it has now; annotate again"
        else:
            said = "not asked, as no run had it among its questions (limit=, another split)"
        yield f"{described(about)}: {said}"
    if shown:
        yield from _replies(annotations.store, collection.slug, query_id)


def _replies(store: Path, slug: str, query_id: str) -> Iterator[str]:
    """What the store keeps under a question's id."""
    records = records_of(store, (pc.field("query_id") == query_id) & (pc.field("collection") == slug))
    if not records:
        yield "no reply is kept under its id: the run ended before it, or its calls were made for an equal question"
    kinds: dict[tuple[str, str, str], list[dict]] = {}
    for record in records:
        kinds.setdefault((record["stage"], record["template"], record["model"]), []).append(record)
    for (stage, template, model), of_kind in kinds.items():
        counts = Counter(record["outcome"] for record in of_kind)
        told = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
        failed = next((record for record in of_kind if record["outcome"] != Outcome.OK), None)
        reply = f"; one that failed says {' '.join(failed['output'].split())[:SHOWN]!r}" if failed else ""
        yield f"replies to {stage} ({template}, {model}): {told}{reply}"
