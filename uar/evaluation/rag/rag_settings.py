"""What RAG is asked to do, checked before anything is retrieved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uar.errors import UserError

RETRIEVED, CLOSED_BOOK, ORACLE = "retrieved", "closed_book", "oracle"
NO_LIMIT = ", or null for no limit"
ALLOWED: dict[str, tuple[str, ...]] = {
    "order": ("rank", "reversed"),
    "lines": (RETRIEVED, CLOSED_BOOK, ORACLE),
    "rewrite": ("llm",),
    "verify": ("llm",),
    "select": ("llm",),
    "query": ("better", "missing_question", "missing_passage"),
}


@dataclass(frozen=True)
class Settings:
    """`top_k`: passages a question, shown by `order`: in rank order, or reversed, the best one next to the question. At most
    `max_words` or `max_tokens` of all of them. `limit`: questions a collection, drawn by `seed`; None: all. `lines`: answers
    are made from the retrieved passages, with a closed book, or from the gold passages. `rewrite`: the LLM writes the search
    query. `verify`: up to `rounds` times the LLM says whether the passages support an answer, and is given those of another
    query where not: by `query` a better one, or what is missing, as a question or a passage. `select`: the LLM selects `keep`
    passages out of the first `candidates` of each search and those that it kept before; None: what a search finds takes the
    place of what was there.
    `max_failure_rate`: share of the calls of each kind that fail past which the run stops."""

    top_k: int
    order: str
    max_words: int | None
    max_tokens: int | None
    limit: int | None
    lines: Sequence[str]
    rewrite: str | None
    verify: str | None
    rounds: int
    max_failure_rate: float = 0.05
    seed: int = 0
    select: str | None = None
    keep: int = 5
    candidates: int = 50
    query: str = "better"

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", [self.lines] if isinstance(self.lines, str) else list(dict.fromkeys(self.lines)))
        for name in ("top_k", "rounds", "keep", "candidates"):
            _at_least_one(name, getattr(self, name))
        check_shown(self.order, self.max_words, self.max_tokens)
        if self.limit is not None:
            _at_least_one("limit", self.limit, NO_LIMIT)
        if not isinstance(self.max_failure_rate, int | float) or not 0 <= self.max_failure_rate <= 1:
            raise UserError(f"rag.max_failure_rate={self.max_failure_rate!r}: a number from 0 to 1 is needed")
        for line in self.lines:
            _known("lines", line)
        _known("query", self.query)
        for name in ("rewrite", "verify", "select"):
            if getattr(self, name) is not None:
                _known(name, getattr(self, name), " or null")
        if not self.lines:
            raise UserError(f"rag.lines is empty; name at least one of {', '.join(ALLOWED['lines'])}, or give rag=off")
        if (self.searches_again or self.select) and RETRIEVED not in self.lines:
            changing = "rag.rewrite, rag.verify and rag.select"
            raise UserError(f"rag.lines={self.lines}: {changing} change retrieved passages; add {RETRIEVED}")
        if self.select and self.keep > self.top_k:
            raise UserError(
                f"rag.keep={self.keep}: the reader is shown rag.top_k={self.top_k} of them; raise it, or keep fewer"
            )
        if self.query != "better" and not self.verify:
            raise UserError(f"rag.query={self.query}: it is asked for where passages are verified; add rag.verify=llm")

    @property
    def searches_again(self) -> bool:
        """Whether passages are retrieved for queries that the LLM writes."""
        return self.rewrite is not None or self.verify is not None


def check_shown(order: str, max_words: int | None, max_tokens: int | None) -> None:
    """UserError for options of what is shown that are out of range."""
    _known("order", order)
    for name, most in (("max_words", max_words), ("max_tokens", max_tokens)):
        if most is not None:
            _at_least_one(name, most, NO_LIMIT)


def _at_least_one(name: str, value: Any, more: str = "") -> None:
    if type(value) is not int or value < 1:
        raise UserError(f"rag.{name}={value!r}: a whole number from 1 on is needed{more}")


def _known(name: str, value: Any, more: str = "") -> None:
    if value not in ALLOWED[name]:
        raise UserError(f"rag.{name}: {value!r} is not known; allowed: {', '.join(ALLOWED[name])}{more}")
