"""A query and a passage as one text, in the form that a tokenizer gives a pair."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PairForm:
    """Token ids before the query, between both and after the passage. `second`: how many of `between` belong to the passage's
    part of the pair; None where the model does not tell parts apart. `length`: tokens of a pair at most, these among them."""

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    second: int | None
    length: int

    @classmethod
    def of(cls, tokenizer: Any, length: int) -> "PairForm":
        encoded = tokenizer("a", "b")
        ids, parts = np.array(encoded["input_ids"], dtype=np.int64), encoded.sequence_ids()
        (start, stop), (again, end) = ((parts.index(part), len(parts) - parts[::-1].index(part)) for part in (0, 1))
        types = encoded.get("token_type_ids")
        second = None if types is None else sum(types[stop:again])
        return cls(ids[:start], ids[stop:again], ids[end:], second, length)

    @property
    def special(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def lengths(self, query: np.ndarray, passage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that are kept of queries and of passages, from those that they have: the longer one is cut first, as
        `longest_first` of transformers does."""
        room = self.length - self.special
        short, long = np.minimum(query, passage), np.maximum(query, passage)
        both = short + long > room
        half = both & (short > room // 2)
        kept_short = np.where(half, room // 2, short)
        kept_long = np.where(both, room - kept_short, long)
        swapped = query > passage
        return np.where(swapped, kept_long, kept_short), np.where(swapped, kept_short, kept_long)

    def joined(self, query: np.ndarray, passage: np.ndarray) -> tuple[np.ndarray, int]:
        """Token ids of the pair, and the place at which the passage's part begins."""
        kept, rest = (int(n) for n in self.lengths(np.array(len(query)), np.array(len(passage))))
        ids = np.concatenate([self.before, query[:kept], self.between, passage[:rest], self.after])
        return ids, len(self.before) + kept + len(self.between) - (self.second or 0)
