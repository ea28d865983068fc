"""Questions of a split that are asked elsewhere too: the same by their words and images, whatever their ids are."""

import logging
from collections.abc import Iterable, Sequence, Set

from uar.collections.collection import Collection

log = logging.getLogger(__name__)
Asked = tuple[str, str | None]  # a question's words, and its image


def asked_of(collection: Collection, query_ids: Iterable[str]) -> set[Asked]:
    """What these questions ask."""
    return {collection.queries[query_id].asked for query_id in query_ids}


def tell_same(collection: Collection, query_ids: Sequence[str], seen: Set[Asked], how: str) -> None:
    """Warn of those of the questions that ask what was `seen`; `how`: what that means for them."""
    number = sum(collection.queries[query_id].asked in seen for query_id in query_ids)
    if number:
        log.warning("%s: %d of %d questions %s", collection.reference, number, len(query_ids), how)
