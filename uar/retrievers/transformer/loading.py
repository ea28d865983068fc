"""Loads tokenizers and encoders: any encoder or decoder of transformers whose tokenizer has a fast backend."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import torch
from tokenizers import normalizers, processors
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from uar.errors import MissingModel, UserError
from uar.machine.model_files import locate, pretrained, why_not_loaded, without_bars

log = logging.getLogger(__name__)
Settings = TypeVar("Settings", bound=Any)
OFFSET = (  # their positions start after the padding token's id
    "camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "markuplm", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip


@contextmanager
def loading(model: str) -> Iterator[str]:
    """The path or id that `locate` gives, for a block that reads its files without a bar. MissingModel where one cannot be
    read."""
    without_bars()
    path = locate(model)
    try:
        yield path
    except OSError as error:
        raise MissingModel(f"model {model}: {why_not_loaded(model, error)}") from error


def load_tokenizer(model: str, path: str, revision: str | None, folder: str, lower: bool = False) -> Any:
    """The tokenizer of `model`, which lies in the subfolder `folder` of `path`; it pads and cuts on the right. `lower`: texts
    are set in lower case first.

    Without a padding token its end-of-text token is taken: padding is masked, so any would do.
    """
    tokenizer: Any = pretrained(AutoTokenizer, path, revision=revision, subfolder=folder)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if lower:
        own = tokenizer.backend_tokenizer.normalizer
        lowercase = normalizers.Lowercase()
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([lowercase, own]) if own else lowercase
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"retriever.model={model}: its tokenizer has neither a pad nor an eos token; choose a model that has one"
            )
        log.info("The tokenizer of %s has no pad token; its eos token %s pads", model, tokenizer.eos_token)
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_alike(tokenizer: Any, queries: Any, model: str) -> None:
    """UserError where queries have another vocabulary than passages."""
    if tokenizer.get_vocab() != queries.get_vocab():
        raise UserError(
            f"retriever.model={model}: queries and passages have different tokenizers; choose a model with one for both"
        )


def append_eos_token(tokenizer: Any, model: str) -> None:
    """Let the tokenizer end every text with its end-of-text token, after what it puts around texts already, and within the
    length at which it cuts them; nothing where it does so already. Files saved of it do so too."""
    number = tokenizer.eos_token_id
    if number is None:
        raise UserError(f"retriever.append_eos=true: the tokenizer of {model} has no eos token; set it to null or false")
    if tokenizer("a")["input_ids"][-1:] == [number]:
        return
    if {"add_bos_token", "add_eos_token"} & set(tokenizer.init_kwargs):  # such tokenizers make their rules when loaded
        tokenizer.add_eos_token = tokenizer.init_kwargs["add_eos_token"] = True
        return
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next(at for at in range(len(whole)) if whole[at : at + len(text)] == text)
    before, after = whole[:start], [*whole[start + len(text) :], number]
    names = {i: tokenizer.convert_ids_to_tokens(i) for i in {*before, *after}}
    around = [[{"SpecialToken": {"id": names[i], "type_id": 0}} for i in ids] for ids in (before, after)]
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    rules = processors.TemplateProcessing()
    rules.__setstate__(  # its constructor reads names of tokens as a language of its own
        json.dumps(
            {
                "type": "TemplateProcessing",
                "single": [*around[0], first, *around[1]],
                "pair": [*around[0], first, *around[1], second, *around[1]],
                "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for i, name in names.items()},
            }
        ).encode()
    )
    tokenizer.backend_tokenizer.post_processor = rules


def encoder_config(model: str, path: str, revision: str | None, folder: str, layers: int | None, dropout: float | None) -> Any:
    """The config of `model`, which lies in the subfolder `folder` of `path`, for its first `layers` layers and another dropout
    where these are given. UserError for an encoder-decoder, and for one with a part for each language that names none."""
    config = pretrained(AutoConfig, path, revision=revision, subfolder=folder)
    if config.is_encoder_decoder:
        raise UserError(f"retriever.model={model}: an encoder-decoder ({config.model_type}); choose an encoder or a decoder")
    if getattr(config, "default_language", "") is None:
        raise UserError(
            f"retriever.model={model}: {config.model_type} has layers for each language, and its config.json does not say "
            f"which to take; set default_language in a copy of it, to one of {', '.join(config.languages)}"
        )
    if layers is not None:
        keep_layers(config, layers)
    if dropout is not None:
        set_dropout(config, dropout)
    if hasattr(config, "use_cache"):
        config.use_cache = False  # keys and values are not needed again
    return config


def load_encoder(
    model: str,
    path: str,
    revision: str | None,
    folder: str,
    layers: int | None,
    dropout: float | None,
    dtype: torch.dtype = torch.float32,
    quantization: Any = None,
) -> Any:
    """The transformer of `model` without its head, its first `layers` layers where that is given, its weights in `dtype`, or
    in fewer bits, as transformers' `quantization` says."""
    more = {} if quantization is None else {"quantization_config": quantization}
    config = encoder_config(model, path, revision, folder, layers, dropout)
    with quiet_loading(layers is not None):
        encoder: Any = pretrained(AutoModel, path, revision=revision, subfolder=folder, config=config, dtype=dtype, **more)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler.requires_grad_(False)  # its output is not used
    return encoder


def use_gradient_checkpointing(encoder: Any, model: str) -> None:
    """Keep one activation a layer; UserError where the model cannot."""
    try:
        encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise UserError(f"retriever.gradient_checkpointing=true: {model} does not support it; set it to false") from error


def is_causal(encoder: nn.Module) -> bool:
    """Whether tokens see only those before them, so that the last one alone has seen the text."""
    return any(getattr(module, "is_causal", False) is True for module in encoder.modules())


def chosen(
    own: Settings,
    config: Any,
    query_prefix: str | None,
    passage_prefix: str | None,
    query_length: int | None,
    passage_length: int | None,
    **others: Any,
) -> Settings:
    """`own`, a dataclass of what a model's files say, with what is given in its place; None is not given. UserError for a
    length that the encoder of `config` has no positions for."""
    texts = {"query_prefix": query_prefix, "passage_prefix": passage_prefix}
    lengths = {"query_length": query_length, "passage_length": passage_length}
    given = {name: value for name, value in {**texts, **lengths, **others}.items() if value is not None}
    settings = replace(own, **given)
    for option in lengths:
        check_length(f"retriever.{option}", getattr(settings, option), config)
    return settings


def with_room(model: Any, query_length: int | None, config: Any) -> Any:
    """See `Ranker.with_room`: a model of the same weights with other `settings`, a dataclass with both lengths."""
    own = model.settings
    length = max(own.query_length, own.passage_length) if query_length is None else query_length
    check_length("expand.query_length", length, config)
    other = copy(model)
    other.settings = replace(own, query_length=length)
    return other


def check_length(option: str, length: int, config: Any) -> None:
    """UserError where the encoder has no positions for so many tokens."""
    there = getattr(config, "max_position_embeddings", None)
    if there and config.model_type in OFFSET:
        there -= config.pad_token_id + 1
    if not isinstance(length, int) or length < 1 or (there and there > 0 and length > there):
        raise UserError(f"{option}={length}: the model reads 1 to {there} tokens; give a number of these")


@contextmanager
def quiet_loading(wanted: bool) -> Iterator[None]:
    """Without transformers' list of the weights of layers that were left out on purpose."""
    logger = logging.getLogger("transformers.modeling_utils")
    before = logger.disabled
    logger.disabled = wanted or before  # another level would make transformers check plans of sharding
    try:
        yield
    finally:
        logger.disabled = before


def keep_layers(config: Any, layers: int) -> None:
    there = config.num_hidden_layers
    if not 1 <= layers <= there:
        raise UserError(f"retriever.layers={layers}: the model has {there} layers; give 1 to {there}")
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.num_hidden_layers = layers


def set_dropout(config: Any, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise UserError(f"retriever.dropout={dropout}: a number from 0 to below 1 is needed")
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, int | float) and "classifier" not in name:
            setattr(config, name, dropout)
