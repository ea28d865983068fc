"""Cross-encoders as files: any encoder of transformers, with a scoring head or without one, and the export."""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from uar.errors import UserError
from uar.machine.model_files import pretrained
from uar.retrievers.transformer.loading import OFFSET, encoder_config, quiet_loading
from uar.retrievers.transformer.published_files import reader
from uar.retrievers.transformer.saving import save_tokenizer
from uar.storage.files import write_json

log = logging.getLogger(__name__)
LENGTH = 512  # tokens of a pair at most, unless an exported model or the user says more
EXPORTED = "uar_length.json"  # of an exported model, which sentence-transformers does not read
POOLER = ".pooler."  # inside a base model, what only a head reads
KIND = "ForSequenceClassification"  # what the architecture of a model with a scoring head ends with
LOGITS = "torch.nn.modules.linear.Identity"  # sentence-transformers would make probabilities of the scores


def load_scorer(
    model: str, path: str, revision: str | None, layers: int | None, dropout: float | None, new_head: bool, pad: int
) -> tuple[Any, bool]:
    """The model of `path` in fp32 with a head of one score, and whether that is new. A model without a head gets one, always
    the same, where `new_head` allows it; else UserError."""
    config = encoder_config(model, path, revision, "", layers, dropout)
    scores = has_head(config)
    if scores and config.num_labels != 1:
        raise UserError(
            f"retriever.model={model}: its head gives {config.num_labels} labels, and a ranker needs one score; choose a "
            "re-ranker, or an encoder without a head"
        )
    if not scores and not new_head:
        raise UserError(
            f"retriever.model={model}: it has no scoring head, so it is no cross-encoder; train one with python train.py "
            "retriever=cross_encoder, or use it with rerank=bi_encoder"
        )
    config.num_labels, config.pad_token_id = 1, pad
    with quiet_loading(True):  # its list of weights that are missing is what follows
        scorer, info = pretrained(
            AutoModelForSequenceClassification,
            path, revision=revision, config=config, dtype=torch.float32, output_loading_info=True,
        )  # fmt: skip
    missing = sorted(info["missing_keys"])
    inside = [name for name in missing if name.startswith(f"{scorer.base_model_prefix}.")]
    if inside:
        log.warning("%s lacks weights of a cross-encoder, which are drawn: %s", model, ", ".join(inside))
    if missing:
        log.warning("%s has no scoring head: a new one is drawn, which ranks at random before it is trained", model)
        _draw(scorer, [name for name, _ in scorer.named_parameters() if name in missing or POOLER in name])
    return scorer, bool(missing)


def has_head(config: Any) -> bool:
    """Whether the files of a model are those of one that gives scores or labels of texts."""
    return any(name.endswith(KIND) for name in config.architectures or ())


def is_cross_encoder(path: str, revision: str | None) -> bool:
    """Of a folder or an id; false where its config cannot be read, which who loads it will say."""
    try:
        return has_head(pretrained(AutoConfig, path, revision=revision))
    except (OSError, ValueError):
        return False


def _draw(scorer: Any, names: list[str]) -> None:
    """New weights of variance 1 / inputs, the same in every process and whenever the model is loaded. From smaller ones,
    scores of a question's passages stay nearly equal for many steps."""
    generator = torch.Generator().manual_seed(0)
    weights = dict(scorer.named_parameters())
    with torch.no_grad():
        for name in names:
            weight = weights[name]
            if weight.ndim > 1:
                weight.copy_(torch.empty(weight.shape).normal_(0, weight.shape[-1] ** -0.5, generator=generator))
            elif "norm" not in name.lower():
                weight.zero_()


def pair_length(asked: int | None, path: str, revision: str | None, tokenizer: Any, config: Any) -> int:
    """Tokens of a pair. None: those of an exported model, of another what tokenizer and positions allow, at most LENGTH.
    UserError where the model has no room for so many, or they are too few for a pair."""
    there = getattr(config, "max_position_embeddings", None)
    if there and config.model_type in OFFSET:
        there -= config.pad_token_id + 1
    if asked is None:
        own = reader(path, revision)(EXPORTED)
        return int(own["length"]) if own else min(LENGTH, tokenizer.model_max_length, there or LENGTH)
    if asked < 8 or (there and asked > there):
        raise UserError(f"retriever.length={asked}: a pair has 8 to {there or 'any number of'} tokens; give a number of these")
    return asked


def export(folder: Path, scorer: Any, tokenizer: Any, length: int) -> None:
    """A folder that sentence-transformers' `CrossEncoder(folder)` loads, whose `predict` gives the scores of training, and
    that `retriever.model=` loads."""
    scorer.config.sentence_transformers = {"activation_fn": LOGITS}
    scorer.save_pretrained(folder)
    save_tokenizer(folder, tokenizer, length)
    write_json(folder / EXPORTED, {"length": length})
