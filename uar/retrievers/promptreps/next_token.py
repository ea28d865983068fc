"""What a chat model is about to write after a text: the last state and the logits of the next token, of one forward pass."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from uar.errors import MissingModel, UserError
from uar.machine.model_files import locate, pretrained, why_not_loaded, without_bars
from uar.machine.precision import device, resolve_dtype
from uar.machine.unrounded import unrounded_results
from uar.retrievers.promptreps.chat_parts import Around
from uar.retrievers.shard_folder import in_budget
from uar.retrievers.token_batches import budget_on

Read = tuple[np.ndarray, torch.Tensor, torch.Tensor]  # places of texts, their states and logits
ALIKE = 0.999  # cosine of a state after a prompt that was read in two parts and in one


class NextToken:
    """`token_budget`: tokens of a forward pass, padding included. What all prompts begin with is read once, where the model
    gives the same states then: it is tried with the first text."""

    def __init__(self, model: str, revision: str | None, precision: str, token_budget: int | None) -> None:
        without_bars()
        self._model: Any
        try:
            dtype = resolve_dtype(precision)
            options = {"revision": revision, "dtype": dtype, "output_loading_info": True}
            self._model, told = pretrained(AutoModelForCausalLM, locate(model), **options)
        except (OSError, ValueError) as error:
            raise MissingModel(f"model {model}: as a language model it {why_not_loaded(model, error)}") from error
        head = self._model.get_output_embeddings()
        if head is None or told["missing_keys"]:
            missing = ", ".join(sorted(told["missing_keys"])) or "head"
            raise UserError(
                f"retriever.model={model}: its files have no {missing}; choose a decoder with the head that writes"
            )
        self._model.to(device()).eval()
        self._budget, self._states = budget_on(self._model.device, token_budget), torch.empty(0)
        head.register_forward_pre_hook(self._keep)
        self._begun: dict[tuple[int, ...], Any] = {}  # keys and values of what prompts begin with; None: not to be used

    @property
    def dim(self) -> int:
        return int(self._model.get_output_embeddings().in_features)

    @torch.inference_mode()
    def read(self, texts: Sequence[Sequence[int]], prompt: Around) -> Iterator[Read]:
        """(places, states, logits) of batches of like length: (batch, dim) and (batch, vocabulary), both fp32."""
        before = prompt.before
        rest = [[*text, *prompt.after] for text in texts]
        if rest and before and before not in self._begun:
            self._try(before, rest[0])
        for places in in_budget(np.array([len(ids) for ids in rest]), self._budget):
            batch = [rest[place] for place in places]
            if self._begun.get(before) is None:
                yield places, *self._forward([[*before, *ids] for ids in batch], (), None)
            else:
                yield places, *self._forward(batch, before, self._begun[before])

    def _try(self, before: tuple[int, ...], ids: list[int]) -> None:
        whole, _ = self._forward([[*before, *ids]], (), None)
        begun = self._model(torch.tensor([before], device=self._model.device), use_cache=True).past_key_values
        parts, _ = self._forward([ids], before, begun)
        same = torch.nn.functional.cosine_similarity(whole, parts).item() > ALIKE
        self._begun[before] = begun if same else None

    def _forward(self, batch: list[list[int]], before: tuple[int, ...], begun: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded on the left, so that the last place of every row is that of the next token."""
        longest = max(map(len, batch))
        ids, mask = np.zeros((len(batch), longest), np.int64), np.zeros((len(batch), longest), np.int64)
        for row, own in enumerate(batch):
            ids[row, longest - len(own) :] = own
            mask[row, longest - len(own) :] = 1
        places = np.maximum(mask.cumsum(axis=1) - 1, 0) + len(before)
        seen = np.concatenate([np.ones((len(batch), len(before)), np.int64), mask], axis=1)
        cache = None
        if begun is not None:
            cache = copy.deepcopy(begun)
            cache.batch_repeat_interleave(len(batch))
        names = ("input_ids", "position_ids", "attention_mask")
        given = {name: torch.from_numpy(a).to(self._model.device) for name, a in zip(names, (ids, places, seen), strict=True)}
        with unrounded_results(self._model.get_output_embeddings()):
            logits = self._model(**given, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1).logits
        return self._states[:, -1].float(), logits[:, -1].float()

    def _keep(self, head: Any, given: tuple[torch.Tensor, ...]) -> None:
        self._states = given[0]
