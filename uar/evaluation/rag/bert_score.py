"""BERTScore (arXiv 1904.09675) through the bert-score library, without idf weights and without baseline rescaling."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from uar.errors import UserError
from uar.machine.model_files import locate, pretrained, without_bars


class BertScore:
    """`model`: a Hugging Face id, a path or `pkg:PACKAGE/PATH`. `layers`: from which layer on tokens are compared; None: the
    layer that the library chose for a model it knows, else the last one. UserError where the model cannot be loaded."""

    def __init__(self, model: str, layers: int | None = None, batch_size: int = 64) -> None:
        from bert_score.utils import model2layers
        from transformers import AutoConfig

        self.model, self._batch_size = model, batch_size
        self._path = locate(model)
        try:
            config = pretrained(AutoConfig, self._path)
        except (OSError, ValueError) as error:
            message = str(error).splitlines()[0]
            raise UserError(
                f"rag.bert_score.model={model}: it cannot be loaded ({message}); give a Hugging Face id, a folder or "
                "pkg:PACKAGE/PATH, or leave BERTScore out of rag.measures"
            ) from error
        self._most = int(getattr(config, "max_position_embeddings", 512))
        deepest = int(config.num_hidden_layers)
        self.layers = layers or model2layers.get(model, deepest)
        if not 1 <= self.layers <= deepest:
            raise UserError(
                f"rag.bert_score.layers={layers}: {model} has {deepest} layers; give one of 1 to {deepest}, or null"
            )

    @cached_property
    def _scorer(self) -> Any:
        from bert_score import BERTScorer

        from uar.machine.precision import device

        without_bars()
        scorer = BERTScorer(model_type=self._path, num_layers=self.layers, batch_size=self._batch_size, device=str(device()))
        tokenizer = scorer._tokenizer
        if tokenizer.model_max_length > 1_000_000:  # a tokenizer that knows no limit; the library would pass it on
            tokenizer.model_max_length = self._most
        return scorer

    def f1(self, answers: Sequence[str], gold: Sequence[Sequence[str]]) -> list[float]:
        """The best F1 over the gold answers, an answer each. 0 where there is no answer."""
        pairs = [(a, [g for g in golden if g.strip()]) for a, golden in zip(answers, gold, strict=True)]
        there = [at for at, (answer, golden) in enumerate(pairs) if answer.strip() and golden]
        values = [0.0] * len(pairs)
        if there:
            _, _, found = self._scorer.score([pairs[at][0] for at in there], [pairs[at][1] for at in there])
            for at, value in zip(there, found.tolist(), strict=True):
                values[at] = float(value)
        return values
