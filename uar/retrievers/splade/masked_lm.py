"""A transformer with a masked-language-model head, whose last layer is kept apart from what comes before it."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM

from uar.errors import UserError
from uar.machine.model_files import pretrained
from uar.retrievers.splade.new_head import make_head
from uar.retrievers.transformer.fast_attention import hidden_states
from uar.retrievers.transformer.loading import encoder_config, quiet_loading

SOME_IDS = ((5, 6, 7),)  # of any vocabulary


def load_masked_lm(
    model: str, path: str, revision: str | None, folder: str, layers: int | None, dropout: float | None, new_head: bool = False
) -> Any:
    """The model of `path` in fp32, whose forward gives the states that its last layer makes logits of; that layer is its
    `get_output_embeddings()`. Where it has no such head it gets one that is new if `new_head` allows it; else UserError."""
    config = encoder_config(model, path, revision, folder, layers, dropout)
    options = {"revision": revision, "subfolder": folder, "config": config, "dtype": torch.float32}
    try:
        with quiet_loading(True):  # its list of weights that are missing is what follows
            loaded, info = pretrained(AutoModelForMaskedLM, path, output_loading_info=True, **options)
    except ValueError as error:  # transformers knows no head of that kind of model
        raise _no_head(model, config.model_type) from error
    missing = sorted(info["missing_keys"])
    if missing and not (new_head and make_head(loaded, missing)):
        raise _no_head(model, f"no weights of {missing[0]}")
    _keep_apart(loaded, model)
    return loaded


def _no_head(model: str, why: str) -> UserError:
    return UserError(
        f"retriever.model={model}: it has no masked-language-model head ({why}), which retriever=splade needs; choose an "
        "encoder that has one, such as distilbert/distilbert-base-uncased, or a learned sparse model, or "
        "set retriever.new_head=true, which makes one of an encoder's word embeddings where its kind has a place for it"
    )


@torch.no_grad()
def _keep_apart(model: Any, name: str) -> None:
    """Have the last layer hand on what it is given. UserError where the logits are not what this layer makes."""
    layer, ids = model.get_output_embeddings(), torch.tensor(SOME_IDS, device=model.device)
    if not isinstance(layer, nn.Linear):
        raise _no_head(name, "its last layer is not linear")
    was_training = model.training
    logits = model.eval()(input_ids=ids).logits
    layer.__dict__["forward"] = _as_given
    states = model(input_ids=ids).logits
    model.train(was_training)
    if states.shape[-1] != layer.in_features or not logits.allclose(
        nn.functional.linear(states, layer.weight, layer.bias), atol=1e-4, rtol=1e-4
    ):
        raise _no_head(name, "its logits are not those of its last layer")


def _as_given(states: torch.Tensor) -> torch.Tensor:
    return states


def head_states(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(texts, length, hidden) of `ids` (texts, length), of which `mask` is 1 at the first tokens of a text; on a CPU a BERT
    computes no padding up to its head."""
    if model.config.model_type == "bert":
        return model.cls(hidden_states(model.bert, ids, mask))
    return model(input_ids=ids, attention_mask=mask).logits
