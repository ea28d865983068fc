"""A model folder of one vector a token, as sentence-transformers' `MultiVectorEncoder` reads it, and what is read of one."""

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from uar.errors import UserError
from uar.retrievers.transformer.lora import merged_state
from uar.retrievers.transformer.published_files import SETTINGS, model_file, prefixes, reader
from uar.retrievers.transformer.saving import save_tokenizer
from uar.storage.files import write_json

QUERY_LENGTH, PASSAGE_LENGTH, DIM = 32, 180, 128  # of ColBERT (arXiv 2004.12832)
TRANSFORMER = "sentence_bert_config.json"
WEIGHTS = "model.safetensors"
STANFORD = "HF_ColBERT"  # the architecture of models of ColBERT's authors
PYLATE = "pylate."  # what the types of its own modules begin with
DENSE, MASK, NORMALIZE = "1_Dense", "2_MultiVectorMask", "3_Normalize"
TYPES = {
    "": "sentence_transformers.base.modules.transformer.Transformer",
    DENSE: "sentence_transformers.base.modules.dense.Dense",
    MASK: "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
    NORMALIZE: "sentence_transformers.base.modules.normalize.Normalize",
}
PUNCTUATION = list(string.punctuation)


@dataclass(frozen=True)
class MultiVector:
    """`projection`: (dim, hidden) of the linear layer after the last hidden states; None: the model has none yet. `expand`:
    queries are filled up with mask tokens to `query_length`. `skip`: tokens of passages that have no vector. `marks`: tokens
    that stand in the prefixes, which the tokenizer would take apart."""

    projection: torch.Tensor | None = None
    query_prefix: str = ""
    passage_prefix: str = ""
    query_length: int = QUERY_LENGTH
    passage_length: int = PASSAGE_LENGTH
    expand: bool = True
    skip: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


def is_multi_vector(path: str, revision: str | None) -> bool:
    """Whether the files of a folder or an id are those of a multi-vector model."""
    read = reader(path, revision)
    if modules := read("modules.json"):
        return any(module["type"].endswith(".MultiVectorMask") or module["type"].startswith(PYLATE) for module in modules)
    return STANFORD in ((read("config.json") or {}).get("architectures") or ())


def read_multi_vector(model: str, path: str, revision: str | None) -> MultiVector | None:
    """Of a folder or an id, as sentence-transformers, PyLate or ColBERT's authors write it; None where the files are not those
    of a multi-vector model. UserError where they ask for what is not built here."""
    if not is_multi_vector(path, revision):
        return None
    read = reader(path, revision)
    modules = read("modules.json") or []
    if not modules:
        return _of_stanford(model, path, revision)
    if any(module["type"].startswith(PYLATE) for module in modules):
        return _of_pylate(model, path, revision)
    places = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
    mask = read(f"{places['MultiVectorMask']}/config.json") or {}
    own = read(TRANSFORMER) or {}
    expansion = own.get("query_expansion")
    projection = _linear(path, places.get("Dense"), revision)
    strange = set(places) - {"Transformer", "Dense", "MultiVectorMask", "Normalize"} or mask.get("keep_only_token_ids")
    filled = expansion is None or (expansion.get("strategy"), expansion.get("attend", False)) == ("fixed", False)
    if projection is None or strange or not filled or mask.get("skiplist_tasks", ["document"]) != ["document"]:
        raise _not_built(model)
    query_length = expansion["length"] if expansion else own.get("query_length") or QUERY_LENGTH
    return MultiVector(
        projection,
        *prefixes((read(SETTINGS) or {}).get("prompts") or {}),
        query_length,
        own.get("document_length") or PASSAGE_LENGTH,
        expansion is not None,
        tuple(mask.get("skiplist_words") or ()),
    )


def _linear(path: str, place: str | None, revision: str | None) -> torch.Tensor | None:
    """Weights of the linear layer in a subfolder; None where it is another layer, or its weights are not in safetensors."""
    dense = reader(path, revision)(f"{place}/config.json")
    weights = model_file(path, f"{place}/{WEIGHTS}", revision)
    plain = dense and not dense.get("bias") and not dense.get("use_residual")
    if weights is None or not plain or not str(dense.get("activation_function", "")).endswith("Identity"):
        return None
    return load_file(weights)["linear.weight"].float()


def _of_pylate(model: str, path: str, revision: str | None) -> MultiVector:
    """Of an encoder and one linear layer, whose settings are those of the class `ColBERT` of PyLate 1, with its defaults where
    the files say nothing; see github.com/lightonai/pylate."""
    read = reader(path, revision)
    kinds = {module["type"].rpartition(".")[2]: module["path"] for module in read("modules.json")}
    own = {name: value for name, value in (read(SETTINGS) or {}).items() if value is not None}
    projection = _linear(path, kinds.get("Dense"), revision)
    built = kinds.get("Transformer") == "" and len(read("modules.json")) == len(kinds) == 2
    if projection is None or not built or own.get("attend_to_expansion_tokens"):
        raise _not_built(model)
    marks = own.get("query_prefix", "[Q] "), own.get("document_prefix", "[D] ")
    return MultiVector(
        projection,
        *marks,
        own.get("query_length", QUERY_LENGTH),
        own.get("document_length", PASSAGE_LENGTH),
        own.get("do_query_expansion", True),
        tuple(own.get("skiplist_words", PUNCTUATION)),
        tuple(mark for mark in marks if mark),
    )


def _of_stanford(model: str, path: str, revision: str | None) -> MultiVector:
    """Of a model whose linear layer lies among the encoder's weights, and whose settings are those of its training; see
    github.com/stanford-futuredata/ColBERT."""
    own, weights = reader(path, revision)("artifact.metadata"), model_file(path, WEIGHTS, revision)
    if own is None or weights is None or own.get("attend_to_mask_tokens") or own.get("similarity", "cosine") != "cosine":
        raise _not_built(model)
    with safe_open(weights, framework="pt") as tensors:
        projection = tensors.get_tensor("linear.weight").float()
    query, passage = own.get("query_token_id") or "[unused0]", own.get("doc_token_id") or "[unused1]"
    return MultiVector(
        projection,
        f"{query} ",
        f"{passage} ",
        own.get("query_maxlen") or QUERY_LENGTH,
        own.get("doc_maxlen") or PASSAGE_LENGTH,
        True,
        tuple(PUNCTUATION) if own.get("mask_punctuation", True) else (),
        (query, passage),
    )


def _not_built(model: str) -> UserError:
    return UserError(
        f"retriever.model={model}: its files are not those of an encoder, a linear layer without bias in safetensors, skipped "
        "tokens of passages and normalised vectors; choose such a multi-vector model"
    )


def export(folder: Path, settings: MultiVector, encoder: Any, tokenizer: Any, projection: nn.Linear) -> None:
    """A folder that `MultiVectorEncoder(folder)` of sentence-transformers and `retriever.model=` load."""
    encoder.save_pretrained(folder, state_dict=merged_state(encoder))
    save_tokenizer(folder, tokenizer)
    expansion = {"strategy": "fixed", "attend": False, "token": None, "length": settings.query_length}
    lengths = {"query_length": settings.query_length, "document_length": settings.passage_length}
    write_json(
        folder / TRANSFORMER,
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
            **lengths,
            **({"query_expansion": expansion} if settings.expand else {}),
        },
    )
    names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    size = {"in_features": projection.in_features, "out_features": projection.out_features, "bias": False}
    write_json(folder / DENSE / "config.json", {**size, "activation_function": "torch.nn.modules.linear.Identity", **names})
    save_file({"linear.weight": projection.weight.detach().cpu().contiguous()}, folder / DENSE / WEIGHTS)
    write_json(folder / MASK / "config.json", {"skiplist_words": list(settings.skip), "skiplist_tasks": ["document"]})
    write_json(folder / NORMALIZE / "config.json", names)
    modules = [{"idx": at, "name": str(at), "path": path, "type": kind} for at, (path, kind) in enumerate(TYPES.items())]
    write_json(folder / "modules.json", modules)
    write_json(
        folder / SETTINGS,
        {
            "model_type": "MultiVectorEncoder",
            "prompts": {"query": settings.query_prefix, "document": settings.passage_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "maxsim",
        },
    )
