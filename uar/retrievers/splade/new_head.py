"""A masked-language-model head for an encoder that has none: its own word embeddings, and as little before them as can be."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)
TEXTS, LENGTH = 64, 16  # of tokens drawn at random, which say how large logits are
SHARE = 0.01  # of the vocabulary that has a weight in such a text
BIAS = "classifier_bias"  # the option of a ModernBERT's config that gives its head the bias which `STRAIGHT` needs
STRAIGHT = 4.0  # from there on an activation is the identity


@torch.no_grad()
def make_head(mlm: Any, missing: Sequence[str]) -> bool:
    """Set the weights `missing` of `mlm`, whose last layer is its word embeddings: what is before that is the identity, and
    one bias of all tokens leaves SHARE of them a weight. False, and nothing is set, where more than a head is missing."""
    head = {name: weight for name, weight in mlm.named_parameters() if name in missing}
    layer, words = mlm.get_output_embeddings(), mlm.get_input_embeddings()
    inside = any(name.startswith(f"{mlm.base_model_prefix}.") for name in missing)
    alone = isinstance(layer, nn.Linear) and layer.weight is words.weight and layer.bias is not None
    if inside or not alone or any(weight.ndim > 1 and len(set(weight.shape)) > 1 for weight in head.values()):
        return False
    for name, part in mlm.named_modules():
        if f"{name}.weight" in head and isinstance(part, nn.Linear) and part.bias is None:
            if not hasattr(mlm.config, BIAS):
                return False
            setattr(mlm.config, BIAS, True)
            part.bias = head[f"{name}.bias"] = nn.Parameter(part.weight.new_empty(part.out_features))
    texts = torch.randint(len(layer.weight), (TEXTS, LENGTH), generator=torch.Generator().manual_seed(0))
    was_training = mlm.training
    shift = STRAIGHT - float(mlm.eval().base_model(input_ids=texts)[0].min())  # the norm that follows takes it away again
    for name, weight in head.items():
        if weight.ndim > 1:
            nn.init.eye_(weight)
        elif weight is not layer.bias and "norm" not in name.lower():
            weight.fill_(shift)
    layer.bias.zero_()
    greatest = mlm(input_ids=texts).logits.amax(dim=1)
    mlm.train(was_training)
    layer.bias.fill_(-greatest.flatten().kthvalue(round(greatest.numel() * (1 - SHARE))).values)
    log.warning("a masked-language-model head is made of the model's word embeddings; it has to be trained")
    return True
