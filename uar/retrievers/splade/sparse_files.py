"""A model folder of sparse vectors, as sentence-transformers' `SparseEncoder` reads it, and what is read of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from uar.errors import UserError
from uar.retrievers.transformer.published_files import (
    LENGTHS,
    PASSAGE_LENGTH,
    QUERY_LENGTH,
    SETTINGS,
    model_file,
    prefixes,
    read_lengths,
    reader,
    transformer_settings,
)
from uar.retrievers.transformer.saving import save_encoder, save_tokenizer
from uar.storage.files import write_json

MODULES = "sentence_transformers.sparse_encoder.models"  # names that all its versions read
ROUTER = "sentence_transformers.models.Router"
TRANSFORMERS = ("MLMTransformer", "Transformer")
POOLING, STATIC = "SpladePooling", "SparseStaticEmbedding"
PASSAGES, POOLED, QUERIES = f"document_0_{TRANSFORMERS[0]}", f"document_1_{POOLING}", f"query_0_{STATIC}"  # as Router has them
ACTIVATIONS = {"relu": 1, "log1p_relu": 2}  # how often the logarithm is taken
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Sparse:
    """`place`: subfolder of the transformer; `queries`: that of the weights of queries' tokens, None where the transformer
    encodes queries too; `weights`: (vocabulary,) these weights; `activation`: one of ACTIVATIONS; `trained`: whether the files
    are those of a learned sparse model."""

    place: str = ""
    queries: str | None = None
    weights: torch.Tensor | None = None
    activation: str = "relu"
    query_prefix: str = ""
    passage_prefix: str = ""
    query_length: int = QUERY_LENGTH
    passage_length: int = PASSAGE_LENGTH
    do_lower_case: bool = False
    trained: bool = False


def is_sparse(path: str, revision: str | None) -> bool:
    """Whether the files of a folder or an id are those of a learned sparse model."""
    return POOLING in [kind for kind, _ in _routes(path, revision).get("document", ())]


def read_sparse(model: str, path: str, revision: str | None, new_head: bool = False) -> Sparse:
    """Of a folder or an id; a model without files of sentence-transformers says nothing but its lengths, nor does one of
    another kind where it is to get a `new_head`. UserError where else the files are those of another kind, or ask for what is
    not built here."""
    read, routes = reader(path, revision), _routes(path, revision)
    if not routes or (new_head and not is_sparse(path, revision)):
        return Sparse(**read_lengths(read, "", False), do_lower_case=bool(transformer_settings(read, "").get("do_lower_case")))
    document, query = routes.get("document", []), routes.get("query", [])
    kinds = [kind for kind, _ in document]
    settings = read(SETTINGS) or {}
    pooling = read(f"{document[-1][1]}/config.json") or {} if document else {}
    activation = pooling.get("activation_function", "relu")
    shared = query == document
    strange = [kind for kind, _ in query] != [STATIC] and not shared
    built = len(kinds) == 2 and kinds[0] in TRANSFORMERS and kinds[1] == POOLING and not strange
    plain = pooling.get("pooling_strategy", "max") == "max" and activation in ACTIVATIONS
    if not built or not plain or (settings.get("similarity_fn_name") or "dot") != "dot":
        raise UserError(
            f"retriever.model={model}: its files are not those of a masked language model with max pooling, queries by it or "
            "by weights of their tokens, and dot products; choose such a learned sparse model, or another retriever=, or "
            "set retriever.new_head=true, which makes one of an encoder"
        )
    place = document[0][1]
    return Sparse(
        place,
        None if shared else query[0][1],
        None if shared else _weights(model, path, query[0][1], revision),
        activation,
        *prefixes(settings.get("prompts") or {}),
        **read_lengths(read, place, True),
        do_lower_case=bool(transformer_settings(read, place).get("do_lower_case")),
        trained=True,
    )


def _routes(path: str, revision: str | None) -> dict[str, list[tuple[str, str]]]:
    """Kinds and places of the modules of queries and of passages; empty where there are no modules."""
    read = reader(path, revision)
    modules = read("modules.json") or []
    if [_kind(module["type"]) for module in modules] != ["Router"]:
        own = [(_kind(module["type"]), module["path"]) for module in modules]
        return {"query": own, "document": own} if own else {}
    router = read("router_config.json") or {}
    types, structure = router.get("types", {}), router.get("structure", {})
    return {name: [(_kind(types.get(place, "")), place) for place in places] for name, places in structure.items()}


def _kind(name: str) -> str:
    return name.rpartition(".")[2] if name.startswith("sentence_transformers.") else name


def _weights(model: str, path: str, place: str, revision: str | None) -> torch.Tensor:
    file = model_file(path, f"{place}/{WEIGHTS}", revision)
    if file is None:
        raise UserError(f"retriever.model={model}: {place} has no {WEIGHTS}; choose a model that has it")
    return load_file(file)["weight"].float()


def export(folder: Path, mlm: Any, tokenizer: Any, settings: Sparse, frozen: bool) -> None:
    """A folder that `SparseEncoder(folder)` and `retriever.model=` load. `settings.weights`: of queries' tokens, None where
    the model encodes queries too; `frozen`: whether training leaves them as they are.

    sentence-transformers cuts all texts at the passages' length, except where queries have weights of their tokens. Both
    lengths stand in a file that it does not read."""
    routed = settings.weights is not None
    transformer, pooling = (PASSAGES, POOLED) if routed else ("", f"1_{POOLING}")
    save_encoder(folder / transformer, mlm, tokenizer, settings.passage_length, settings.do_lower_case)
    size = mlm.get_output_embeddings().out_features
    pooled = {"pooling_strategy": "max", "activation_function": settings.activation, "word_embedding_dimension": size}
    write_json(folder / pooling / "config.json", pooled)
    if settings.weights is not None:
        _save_weights(folder / QUERIES, settings.weights, tokenizer, settings.query_length, frozen)
        structure = {"query": [QUERIES], "document": [PASSAGES, POOLED]}
        types = {place: f"{MODULES}.{place.rpartition('_')[2]}" for places in structure.values() for place in places}
        parameters = {"default_route": "document", "allow_empty_key": True}
        write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})
    modules = [("", ROUTER)] if routed else [("", f"{MODULES}.{TRANSFORMERS[0]}"), (pooling, f"{MODULES}.{POOLING}")]
    write_json(folder / "modules.json", _numbered(modules))
    write_json(folder / LENGTHS, {"query_length": settings.query_length, "passage_length": settings.passage_length})
    like = {"model_type": "SparseEncoder", "default_prompt_name": None, "similarity_fn_name": "dot"}
    prompts = {"query": settings.query_prefix, "document": settings.passage_prefix}
    write_json(folder / SETTINGS, {**like, "prompts": prompts})


def _numbered(modules: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"idx": at, "name": str(at), "path": path, "type": kind} for at, (path, kind) in enumerate(modules)]


def _save_weights(folder: Path, weights: torch.Tensor, tokenizer: Any, length: int, frozen: bool) -> None:
    write_json(folder / "config.json", {"frozen": frozen})
    save_file({"weight": weights.detach().cpu().contiguous()}, folder / WEIGHTS)
    save_tokenizer(folder, tokenizer, length)
