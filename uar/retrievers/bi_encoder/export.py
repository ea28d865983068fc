"""A trained retriever as a folder in sentence-transformers' format."""

from pathlib import Path
from typing import Any

from torch import nn

from uar.retrievers.bi_encoder.encoder_settings import LEGACY, Published
from uar.retrievers.bi_encoder.head import save_head
from uar.retrievers.transformer.published_files import DIMENSIONS, LENGTHS, SETTINGS
from uar.retrievers.transformer.saving import save_encoder
from uar.storage.files import write_json

TYPES = "sentence_transformers.models"  # names that all its versions read
PASSAGES, QUERIES = "document_0_Transformer", "query_0_Transformer"  # as its Router names them


def export(folder: Path, settings: Published, encoder: Any, query_encoder: Any, tokenizer: Any, head: nn.Sequential) -> None:
    """A folder that `SentenceTransformer(folder)` and `BiEncoder(str(folder))` load, without peft. The encoders stay as they
    are. `query_encoder`: None where queries share the passages' one; two encoders become a Router, which `encode_query` and
    `encode_document` choose from. `head`: the dense layers after pooling.

    sentence-transformers cuts all texts at the passages' length, except where queries have their own encoder. Both lengths
    stand in a file that it does not read.
    """
    if query_encoder is None:
        save_encoder(folder, encoder, tokenizer, settings.passage_length, settings.do_lower_case)
        first = "Transformer"
    else:
        save_encoder(folder / PASSAGES, encoder, tokenizer, settings.passage_length, settings.do_lower_case)
        save_encoder(folder / QUERIES, query_encoder, tokenizer, settings.query_length, settings.do_lower_case)
        write_json(folder / "router_config.json", _routes())
        first = "Router"
    write_json(folder / "1_Pooling" / "config.json", _pooling(int(encoder.config.hidden_size), str(settings.pooling)))
    dense = save_head(head, folder, first=2)
    modules = [("", first), ("1_Pooling", "Pooling"), *((name, "Dense") for name in dense)]
    normalize = f"{len(modules)}_Normalize"
    if settings.normalize:
        modules.append((normalize, "Normalize"))
        (folder / normalize).mkdir(exist_ok=True)
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": f"{TYPES}.{kind}"} for i, (path, kind) in enumerate(modules)],
    )
    write_json(folder / LENGTHS, {"query_length": settings.query_length, "passage_length": settings.passage_length})
    write_json(
        folder / SETTINGS,
        {
            "prompts": {"query": settings.query_prefix, "document": settings.passage_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if settings.normalize else "dot",
            **({DIMENSIONS: list(settings.dimensions)} if settings.dimensions else {}),
        },
    )


def _pooling(size: int, pooling: str) -> dict[str, Any]:
    modes = pooling.split("+")
    if len(modes) > 1:  # in an order that the keys of older versions do not tell
        return {"embedding_dimension": size, "pooling_mode": modes, "include_prompt": True}
    return {"word_embedding_dimension": size, **{key: mode in modes for key, mode in LEGACY.items()}}


def _routes() -> dict[str, Any]:
    return {
        "types": {QUERIES: f"{TYPES}.Transformer", PASSAGES: f"{TYPES}.Transformer"},
        "structure": {"query": [QUERIES], "document": [PASSAGES]},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
