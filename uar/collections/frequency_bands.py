"""Head, torso and tail: queries by how often a click log has them."""

from collections.abc import Iterable, Mapping

BANDS = ("head", "torso", "tail")
HEAD, TORSO = 0.1, 0.3  # shares of the queries


def frequencies(impressions: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """How often each query was asked: the impressions of the passage of it that was shown most. `impressions`: query id,
    passage id, times shown, of which several of a pair add up."""
    shown: dict[str, dict[str, int]] = {}
    for query_id, doc_id, times in impressions:
        of_query = shown.setdefault(query_id, {})
        of_query[doc_id] = of_query.get(doc_id, 0) + times
    return {query_id: max(of_query.values()) for query_id, of_query in shown.items()}


def bands(asked: Mapping[str, int], query_ids: Iterable[str]) -> dict[str, str]:
    """By query id `head`, the tenth of the queries that is asked most, `torso`, the next three tenths, or `tail`. Queries
    asked equally often are of one band, the greater one; those that `asked` lacks are of the tail."""
    given = list(query_ids)
    order = sorted((asked.get(q, 0) for q in given), reverse=True)
    cuts = [order[round(share * len(order)) - 1] if round(share * len(order)) else None for share in (HEAD, HEAD + TORSO)]
    found = {}
    for query_id in given:
        times = asked.get(query_id, 0)
        above = [band for band, cut in zip(BANDS, cuts, strict=False) if cut is not None and times >= cut and times > 0]
        found[query_id] = above[0] if above else "tail"
    return found
