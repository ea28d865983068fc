"""What in the passages shown could break the protocol between prompts and replies, and how many of them were cut."""

import logging
from typing import Any

import numpy as np

from uar.collections import Collection
from uar.collections.languages import words_in
from uar.llm.prompts.escaping import attempts

log = logging.getLogger(__name__)
KINDS = ("control_tokens", "role_markers", "identifiers", "answer_formats", "instructions")


def material(collection: Collection, shown: np.ndarray, words: int | None) -> dict[str, Any]:
    """How many of the passages shown (rows) are longer than the `words` that are shown of each (None: all), and how many hold
    what could break the protocol, by kind. Instructions are shown as they are."""
    rows = np.unique(shown).tolist()
    counts = dict.fromkeys(KINDS, 0)
    defused = cut = 0
    for text in collection.corpus.texts(rows):
        seen = list(attempts(text))
        cut += words is not None and words_in(text, words + 1) > words
        defused += any(kind != "instructions" for kind in seen)
        for kind in seen:
            counts[kind] += 1
    if kinds_seen := ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in counts.items() if n):
        log.info(
            "%d of %d passages hold what could pass for the protocol and are defused; seen: %s",
            defused, len(rows), kinds_seen,
        )  # fmt: skip
    if cut:
        log.info("%d of %d passages are longer than annotator.max_words=%d: their ends are not shown", cut, len(rows), words)
    return {"passages": len(rows), "passages_cut": cut, "passages_defused": defused, "by_kind": counts}
