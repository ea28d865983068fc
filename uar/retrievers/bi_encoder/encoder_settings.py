"""What a model's own files say of it: pooling, dense layers, similarity, prompts, lengths, one encoder or two."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uar.errors import UserError
from uar.retrievers.kinds import kind_that_reads
from uar.retrievers.transformer.published_files import (
    PASSAGE_LENGTH,
    QUERY_LENGTH,
    Read,
    prefixes,
    read_lengths,
    reader,
    transformer_settings,
)

log = logging.getLogger(__name__)
OURS = "sentence_transformers."  # what the types of its own modules begin with
KINDS = ("Transformer", "Router", "Asym", "Pooling", "Dense", "Normalize", "Dropout")
SIMILARITIES = ("cosine", "dot")
LEGACY = {  # one true-or-false key a mode, before sentence-transformers 6, in the order in which they are joined
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Published:
    """`passages`, `queries`: subfolders of the encoders, the second only where queries have one of their own; `dense`: of the
    layers after pooling. None: the files do not say. `pooling`: modes, joined by `+`. `normalize`: whether vectors are
    compared by cosine. `query_length`, `passage_length`: tokens, as the model was exported; of others what
    they are published to read, and the usual ones where no files of sentence-transformers say it. `dimensions`: so many
    first numbers of a vector were trained to do alone, which sentence-transformers takes as `truncate_dim`."""

    passages: str = ""
    queries: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    query_prefix: str = ""
    passage_prefix: str = ""
    query_length: int = QUERY_LENGTH
    passage_length: int = PASSAGE_LENGTH
    dense: tuple[str, ...] = ()
    do_lower_case: bool = False
    dimensions: tuple[int, ...] = ()


def read_published(model: str, path: str, revision: str | None) -> Published:
    """`path`: a folder or an id on the hub, as `locate` gives it for `model`. UserError where the files ask for layers that
    are not built here."""

    read = reader(path, revision)
    modules = read("modules.json") or []
    if not modules:
        _refuse_other_kind(model, path, revision)
    kinds = [(module["type"].rpartition(".")[2], module["path"]) for module in modules]
    strange = [module["type"] for module, (kind, _) in zip(modules, kinds, strict=True) if not _known(module["type"], kind)]
    if strange or "Normalize" in [kind for kind, _ in kinds[:-1]]:
        raise UserError(
            f"retriever.model={model}: its modules.json has {', '.join(strange) or 'a layer after normalisation'}, which is "
            "not supported; choose a model of an encoder, pooling, dense layers and normalisation"
        )
    places = dict(kinds)
    passages, queries = _encoders(model, read, places)
    settings = read("config_sentence_transformers.json") or {}
    return Published(
        passages,
        queries,
        _pooling(read(f"{places.get('Pooling', '1_Pooling')}/config.json")),
        _normalize(model, kinds, settings.get("similarity_fn_name")),
        *prefixes(settings.get("prompts") or {}),
        dense=tuple(place for kind, place in kinds if kind == "Dense"),
        do_lower_case=bool(transformer_settings(read, passages).get("do_lower_case")),
        **read_lengths(read, passages, bool(modules)),
    )


def _refuse_other_kind(model: str, path: str, revision: str | None) -> None:
    """UserError where a model without files of sentence-transformers is a ranker of another kind, whose head would be lost."""
    other = kind_that_reads(path, revision)
    if other:
        name, kind = other
        raise UserError(
            f"retriever.model={model}: it is a {kind.kind.name}, no encoder of one vector a text; use it with retriever={name}"
        )


def _known(name: str, kind: str) -> bool:
    return kind in KINDS and name.startswith(OURS)


def _normalize(model: str, kinds: Sequence[tuple[str, str]], similarity: str | None) -> bool | None:
    """None where there are no modules. Where no similarity is named, as in older files, vectors are compared as they come."""
    if not kinds:
        return None
    if similarity is not None and similarity not in SIMILARITIES:
        raise UserError(
            f"retriever.model={model}: its vectors are compared by {similarity}; models of {' and '.join(SIMILARITIES)} "
            "are supported"
        )
    if kinds[-1][0] == "Normalize":
        return True
    if similarity is None:
        log.info("%s names no similarity: the dot product of its vectors; normalize=true for cosine", model)
    return similarity == "cosine"


def _encoders(model: str, read: Read, kinds: Mapping[str, str]) -> tuple[str, str | None]:
    """Subfolders of the passages' encoder and of the queries' own one."""
    if not {"Router", "Asym"} & set(kinds):
        return kinds.get("Transformer", ""), None
    structure = (read("router_config.json") or read("config.json"))["structure"]
    if set(structure) != {"query", "document"} or any(len(route) != 1 for route in structure.values()):
        raise UserError(
            f"retriever.model={model}: its routes are {', '.join(structure)}; two routes, query and document, "
            "of one encoder each are needed"
        )
    return structure["document"][0], structure["query"][0]


def _pooling(config: Mapping[str, Any] | None) -> str | None:
    """Its name, which `BiEncoder` refuses where it is none of its own."""
    if config is None:
        return None
    modes = config.get("pooling_mode") or [mode for key, mode in LEGACY.items() if config.get(key)]
    name = modes if isinstance(modes, str) else "+".join(modes) or "mean"
    return name if config.get("include_prompt", True) else f"{name} without the prompt"
