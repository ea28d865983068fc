"""Dense and sparse representations of texts, from one forward pass of a chat model each."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack
from transformers import AutoTokenizer

from uar.collections import Collection
from uar.errors import MissingModel, UserError
from uar.machine.model_files import identity, locate, pretrained, why_not_loaded
from uar.machine.precision import resolve_dtype
from uar.machine.unrounded import UNROUNDED
from uar.retrievers.promptreps.chat_parts import Around, around
from uar.retrievers.promptreps.next_token import NextToken
from uar.retrievers.promptreps.own_words import OwnWords
from uar.storage.files import digest

log = logging.getLogger(__name__)
Reps = tuple[np.ndarray, csr_matrix]  # (texts, dim) fp32 at length 1, and (texts, vocabulary) whole numbers


class Representations:
    """`system`, `answer`, `prompts` by role, query and passage: see `around`; `lengths`: tokens of a text by role, the prompt
    not counted; `most_tokens`, `expansion`: see `OwnWords`; `token_budget`: tokens of a forward pass. The weights are loaded
    when they are first needed."""

    def __init__(
        self,
        model: str,
        revision: str | None,
        system: str,
        prompts: Mapping[str, str],
        answer: str,
        lengths: Mapping[str, int],
        most_tokens: int,
        expansion: int,
        token_budget: int | None,
    ) -> None:
        self._model, self._revision, self._budget = model, revision, token_budget
        try:
            self._tokenizer: Any = pretrained(AutoTokenizer, locate(model), revision=revision)
        except (OSError, ValueError) as error:
            raise MissingModel(f"model {model}: {why_not_loaded(model, error)}") from error
        self._prompts: dict[str, Around] = {
            role: around(self._tokenizer, model, system, prompt, answer) for role, prompt in prompts.items()
        }
        self._lengths, self._most_tokens, self._expansion = dict(lengths), most_tokens, expansion
        self._loaded: dict[str, NextToken] = {}
        self._words: dict[str, OwnWords] = {}  # by language
        self._read: dict[str, list[int]] = {}  # by role: texts, and those of them that were cut
        self.name = identity(model, revision)

    def made_of(self, collection: Collection) -> dict[str, Any]:
        """All that makes those of a collection's texts, but the precision."""
        return {
            "model": self.name,
            "prompts": digest({role: [prompt.before, prompt.after] for role, prompt in self._prompts.items()}),
            "texts": collection.corpus.hash,
            "language": collection.corpus.language,
            "lengths": self._lengths,
            "tokens": [self._most_tokens, self._expansion],
            "logits": UNROUNDED,
        }

    def dim(self, precision: str) -> int:
        return self._opened(precision).dim

    def encode(self, texts: Sequence[str], role: str, language: str, precision: str) -> Reps:
        """UserError where a number is not finite. `role`: query or passage."""
        model = self._opened(precision)
        if language not in self._words:
            self._words[language] = OwnWords(self._tokenizer, language, self._most_tokens, self._expansion)
        words = self._words[language]
        whole, length = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"], self._lengths[role]
        ids = [own[:length] for own in whole]
        before = self._read.get(role, [0, 0])
        self._read[role] = [before[0] + len(ids), before[1] + sum(len(own) > length for own in whole)]
        dense = np.empty((len(texts), model.dim), np.float32)
        sparse: list[csr_matrix] = []
        order: list[np.ndarray] = []
        for places, states, logits in model.read(ids, self._prompts[role]):
            dense[places] = (states / states.norm(dim=1, keepdim=True).clamp(min=1e-12)).cpu().numpy()
            sparse.append(words.weigh([texts[place] for place in places], logits))
            order.append(places)
        if not np.isfinite(dense).all():
            raise UserError(f"{self.name}: its states are not finite in this precision; search with search.precision=fp32")
        return dense, vstack(sparse, format="csr")[np.argsort(np.concatenate(order))]

    def tell_cut(self) -> None:
        """Log how many of the texts that were encoded since the last time were cut."""
        for role, (texts, cut) in self._read.items():
            if cut:
                line = "%s: %d of %d texts are cut at %d tokens; retriever.%s_length sets how many are read of a %s"
                log.warning(line, self.name, cut, texts, self._lengths[role], role, role)
        self._read = {}

    def unload(self) -> None:
        """The model leaves the memory; it is loaded again when it is next needed."""
        self._loaded = {}

    def _opened(self, precision: str) -> NextToken:
        name = str(resolve_dtype(precision))
        if name not in self._loaded:
            self._loaded = {name: NextToken(self._model, self._revision, precision, self._budget)}
        return self._loaded[name]
