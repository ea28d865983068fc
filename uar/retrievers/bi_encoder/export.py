"""A trained retriever as a folder in sentence-transformers' format."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from uar.retrievers.bi_encoder.encoder_settings import LEGACY, LENGTHS
from uar.retrievers.bi_encoder.head import save_head
from uar.retrievers.bi_encoder.lora import merged_state
from uar.storage.files import write_json

if TYPE_CHECKING:
    from uar.retrievers.bi_encoder.encoder import BiEncoder

TYPES = "sentence_transformers.models"  # names that all its versions read
PASSAGES, QUERIES = "document_0_Transformer", "query_0_Transformer"  # as its Router names them


def export(retriever: "BiEncoder", folder: Path) -> None:
    """A folder that `SentenceTransformer(folder)` and `BiEncoder(str(folder))` load, without peft; two encoders become a
    Router, which `encode_query` and `encode_document` choose from. The retriever stays as it is.

    sentence-transformers cuts all texts at the passages' length, except where queries have their own encoder. Both lengths
    stand in a file that it does not read.
    """
    if retriever.query_encoder is None:
        _encoder(folder, retriever.encoder, retriever, retriever.passage_length)
        first = "Transformer"
    else:
        _encoder(folder / PASSAGES, retriever.encoder, retriever, retriever.passage_length)
        _encoder(folder / QUERIES, retriever.query_encoder, retriever, retriever.query_length)
        write_json(folder / "router_config.json", _routes())
        first = "Router"
    write_json(folder / "1_Pooling" / "config.json", _pooling(retriever))
    dense = save_head(retriever.head, folder, first=2)
    modules = [("", first), ("1_Pooling", "Pooling"), *((name, "Dense") for name in dense)]
    normalize = f"{len(modules)}_Normalize"
    if retriever.normalize:
        modules.append((normalize, "Normalize"))
        (folder / normalize).mkdir(exist_ok=True)
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": f"{TYPES}.{kind}"} for i, (path, kind) in enumerate(modules)],
    )
    write_json(folder / LENGTHS, {"query_length": retriever.query_length, "passage_length": retriever.passage_length})
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": retriever.query_prefix, "document": retriever.passage_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if retriever.normalize else "dot",
        },
    )


def _encoder(folder: Path, encoder: Any, retriever: "BiEncoder", length: int) -> None:
    tokenizer = retriever.tokenizer
    encoder.save_pretrained(folder, state_dict=merged_state(encoder))
    tokenizer.backend_tokenizer.no_truncation()  # what the last call left behind
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": retriever.lower_case})


def _pooling(retriever: "BiEncoder") -> dict[str, Any]:
    size, modes = int(retriever.encoder.config.hidden_size), retriever.pooling.split("+")
    if len(modes) > 1:  # in an order that the keys of older versions do not tell
        return {"embedding_dimension": size, "pooling_mode": modes, "include_prompt": True}
    return {"word_embedding_dimension": size, **{key: mode in modes for key, mode in LEGACY.items()}}


def _routes() -> dict[str, Any]:
    return {
        "types": {QUERIES: f"{TYPES}.Transformer", PASSAGES: f"{TYPES}.Transformer"},
        "structure": {"query": [QUERIES], "document": [PASSAGES]},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
