"""What in the passages shown could break the protocol between prompts and replies."""

import logging
from typing import Any

import numpy as np

from uar.collections import Collection
from uar.llm.prompts.escaping import attempts

log = logging.getLogger(__name__)
KINDS = ("control_tokens", "role_markers", "identifiers", "answer_formats", "instructions")


def material(collection: Collection, shown: np.ndarray) -> dict[str, Any]:
    """How many of the passages shown (rows) hold what could break the protocol, by kind. Instructions are shown as they
    are."""
    rows = np.unique(shown).tolist()
    counts = dict.fromkeys(KINDS, 0)
    defused = 0
    for text in collection.corpus.texts(rows):
        seen = list(attempts(text))
        defused += any(kind != "instructions" for kind in seen)
        for kind in seen:
            counts[kind] += 1
    if kinds_seen := ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in counts.items() if n):
        log.info(
            "%d of %d passages hold what could pass for the protocol and are defused; seen: %s",
            defused, len(rows), kinds_seen,
        )  # fmt: skip
    return {"passages": len(rows), "passages_defused": defused, "by_kind": counts}
