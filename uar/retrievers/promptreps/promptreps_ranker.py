"""PromptReps (arXiv 2404.18424): a chat model, asked for one word that represents a text, gives dense and sparse vectors."""

from collections.abc import Sequence

from uar.collections import Collection
from uar.errors import UserError
from uar.retrievers.promptreps.promptreps_search import PARTS, PromptRepsSearch
from uar.retrievers.promptreps.representations import Representations
from uar.retrievers.ranker import Ranker
from uar.retrievers.search_options import INDEX, VECTORS
from uar.retrievers.session import Session
from uar.retrievers.session_ranker import SessionRanker
from uar.storage.files import digest


class PromptReps(SessionRanker):
    """What `retriever=promptreps` instantiates. Nothing is trained.

    The dense vector is the model's last state before it writes the word, at length 1. The sparse one is log(1 + max(0, logit))
    of the tokens of the text's own words, without stop words: the `most_tokens` greatest as whole numbers, times 100; of
    a text without words the 10 best tokens. `expansion`: so many best tokens of letters besides.

    `parts`: dense, sparse or both. Both are fused: of each the best `list_depth` passages, or as many as are asked for, their
    scores set between 0 and 1, weighted by `dense_weight` and the rest; a passage that one lacks has 0 of it.
    `system`, `query_prompt`, `passage_prompt`, `answer`: see `around`. Texts are cut at `query_length` and `passage_length`
    tokens, the prompt not counted. `token_budget`: tokens of one forward pass.
    """

    def __init__(
        self,
        model: str,
        system: str,
        query_prompt: str,
        passage_prompt: str,
        answer: str,
        revision: str | None = None,
        parts: Sequence[str] = PARTS,
        dense_weight: float = 0.5,
        list_depth: int = 1_000,
        most_tokens: int = 128,
        expansion: int = 0,
        query_length: int = 512,
        passage_length: int = 512,
        token_budget: int | None = None,
    ) -> None:
        if not parts or not set(parts) <= set(PARTS):
            raise UserError(f"retriever.parts={list(parts)}: give one or both of {', '.join(PARTS)}")
        if not 0 <= dense_weight <= 1:
            raise UserError(f"retriever.dense_weight={dense_weight}: a number from 0 to 1 is needed")
        self._lengths = {"query_length": query_length, "passage_length": passage_length}
        numbers = {**self._lengths, "most_tokens": most_tokens, "list_depth": list_depth, "token_budget": token_budget}
        for option, value in {**numbers, "expansion": expansion}.items():
            least = 0 if option == "expansion" else 1
            if value is not None and (type(value) is not int or value < least):
                raise UserError(f"retriever.{option}={value}: a whole number from {least} on is needed")
        self._parts = [part for part in PARTS if part in parts]
        self._weights, self._list_depth = {"dense": dense_weight, "sparse": 1 - dense_weight}, list_depth
        self._reps = Representations(
            model,
            revision,
            system,
            {"query": query_prompt, "passage": passage_prompt},
            answer,
            {"query": query_length, "passage": passage_length},
            most_tokens,
            expansion,
            token_budget,
        )
        self.name = f"promptreps({self._reps.name}, {'+'.join(self._parts)})"

    @property
    def fuses(self) -> bool:
        return len(self._parts) > 1

    @property
    def lengths(self) -> dict[str, int]:
        return {f"promptreps.{name}": n for name, n in self._lengths.items()}

    def key(self, collection: Collection) -> str:
        texts = [query.text for query in collection.queries.values()]
        return digest(self._reps.made_of(collection), self._parts, self._weights, self._list_depth, texts)

    @property
    def search_options(self) -> frozenset[str]:
        return VECTORS - {"processes"} if "dense" in self._parts else INDEX

    def opened(self, session: Session, part: str = "") -> Ranker:
        session.at_end(self._reps.unload)
        return PromptRepsSearch(
            self._reps, {name: self._weights[name] for name in self._parts}, self._list_depth, session, part
        )
