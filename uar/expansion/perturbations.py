"""Questions in other wordings, by rule: what people type is not always what somebody wrote who made a collection."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from uar.collections import Collection
from uar.errors import UserError
from uar.storage.ordering import rank_of

SHORTEST = 4  # letters of a word that is mistyped
EVERY = 4  # so many such words have one typo, or their rest
FUNCTION_WORD = re.compile(
    "an?|the|and|or|but|of|in|on|at|by|to|for|from|with|as|into|about|is|are|was|were|be|been|being|am|do|does|did|has|have|had|"
    "can|could|will|would|shall|should|may|might|must|what|which|who|whom|whose|when|where|why|how|that|this|these|those|there|"
    "its?|he|she|they|them|his|her|their|i|you|we|us|my|your|our|please|tell|me|some|any",
    re.IGNORECASE,
)
FRAMES = (
    "can you tell me {}",
    "i would like to know {}",
    "{} please explain",
    "my question is {}",
    "does anybody know {}",
    "help me find out {}",
)


@dataclass(frozen=True)
class Draws:
    """What chance decides for one question: a function of the seed, the kind of change and the question's id."""

    seed: int
    kind: str
    query_id: str

    def order(self, number: int, what: str = "order") -> list[int]:
        """0 … number - 1 in an order that was drawn."""
        return sorted(range(number), key=lambda at: rank_of(self.seed, self.kind, self.query_id, what, str(at)))

    def one_of(self, number: int, what: str) -> int:
        return int.from_bytes(rank_of(self.seed, self.kind, self.query_id, what)[:8], "little") % number


def typos(text: str, draws: Draws) -> str:
    """In one of four words of at least four letters, and in one at least: two letters after the first change places, or an
    inner one is left out or typed twice."""
    words = text.split()
    long = [at for at, word in enumerate(words) if len(word) >= SHORTEST and word.isalpha()]
    for place in draws.order(len(long))[: max(1, len(long) // EVERY)]:
        words[long[place]] = _mistyped(words[long[place]], draws, str(place))
    return " ".join(words)


def _mistyped(word: str, draws: Draws, place: str) -> str:
    at, how = 1 + draws.one_of(len(word) - 2, f"letter {place}"), draws.one_of(3, f"typo {place}")
    if how == 0 and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[: at + 1] + word[at:] if how == 1 else word[:at] + word[at + 1 :]


def spacing(text: str, draws: Draws) -> str:
    """One space is left out."""
    words = text.split()
    if len(words) < 2:
        return text
    at = draws.one_of(len(words) - 1, "space")
    return " ".join([*words[:at], words[at] + words[at + 1], *words[at + 2 :]])


def word_order(text: str, draws: Draws) -> str:
    """The words in another order."""
    words = text.split()
    mixed = [words[at] for at in draws.order(len(words))]
    return " ".join(mixed if mixed != words else [*words[1:], *words[:1]])


def keywords(text: str, draws: Draws) -> str:
    """Without English question words, articles, prepositions and the like."""
    words = text.split()
    kept = [word for word in words if not FUNCTION_WORD.fullmatch(word.strip("?,.!'\""))]
    return " ".join(kept or words).rstrip("?")


def paraphrase(text: str, draws: Draws) -> str:
    """In an English frame such as 'can you tell me …'."""
    return FRAMES[draws.one_of(len(FRAMES), "frame")].format(" ".join(text.split()).rstrip("?"))


RULES: dict[str, Callable[[str, Draws], str]] = {
    rule.__name__: rule for rule in (typos, spacing, word_order, keywords, paraphrase)
}
ENGLISH = ("keywords", "paraphrase")


def check_kinds(kinds: Sequence[str], option: str) -> list[str]:
    """The kinds that an option names; UserError for one that is not known, and for one that stands there twice."""
    given = [kinds] if isinstance(kinds, str) else list(kinds)
    odd = next((kind for kind in given if kind not in RULES or given.count(kind) > 1), None)
    if odd is not None:
        raise UserError(f"{option} names {odd!r}{' twice' if odd in RULES else ''}; allowed: {', '.join(RULES)}, each once")
    return given


def perturbed(collection: Collection, query_ids: Sequence[str], kind: str, seed: int) -> dict[str, str]:
    """Texts of the queries after a change of that kind, which leaves some as they are: a text of one word has no other order.
    UserError where the rule knows English alone, and the passages are of another language."""
    if kind in ENGLISH and collection.corpus.language != "en":
        others = ", ".join(name for name in RULES if name not in ENGLISH)
        raise UserError(f"{kind}: its rule has English words, and {collection.reference} is not English; allowed: {others}")
    return {q: RULES[kind](collection.queries[q].text, Draws(seed, kind, q)) for q in query_ids}
