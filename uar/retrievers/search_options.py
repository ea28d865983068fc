"""Options of the config group `search`, and which of them a ranker reads."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

EXACT: Mapping[str, Any] = MappingProxyType(  # conf/search/exact.yaml, whose class brings torch, as it is
    {
        "embeddings": None,
        "processes": "auto",
        "precision": "auto",
        "dimensions": None,
        "quantize": None,
        "rescore": 4,
        "recall_queries": 200,
    }
)
SCORING = frozenset({"precision"})  # of a model that encodes or scores pools
INDEX = SCORING | {"embeddings"}  # of one that keeps an index of its own form
VECTORS = frozenset(EXACT) | {"factory"}  # of one whose single vectors are searched


def changed(search: Mapping[str, Any]) -> dict[str, Any]:
    """What is other than in `search=exact`; of an index of faiss its `factory`, without what belongs to that alone."""
    return {name: value for name, value in search.items() if name == "factory" or value != EXACT.get(name, value)}
