"""The files of a model, in a folder or on the hub: its settings, prompts and lengths, as sentence-transformers keeps them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from uar.storage.files import read_json

SETTINGS, DIMENSIONS = "config_sentence_transformers.json", "matryoshka_dims"
LENGTHS = "uar_lengths.json"  # of an exported model
QUERY_LENGTH, PASSAGE_LENGTH = 64, 256  # of a model whose files say nothing of these
TRANSFORMER_FILES = [f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "xlm-roberta", "xlnet")]
NO_LIMIT = 10**9  # transformers writes 1e30 for none
Read = Callable[[str], Any]


def reader(path: str, revision: str | None) -> Read:
    """Reads a JSON file of a model, in a folder or on the hub, by name; None where the model has none."""

    def read(name: str) -> Any:
        file = model_file(path, name.lstrip("/"), revision)
        return read_json(file) if file else None

    return read


def model_file(path: str, name: str, revision: str | None) -> Path | None:
    """A file of a model, in a folder or on the hub; None where it has none."""
    if Path(path).is_dir():
        return Path(path) / name if (Path(path) / name).is_file() else None
    found = cached_file(
        path,
        name,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def prefixes(prompts: Mapping[str, str]) -> tuple[str, str]:
    """Of queries and of passages; those of passages by the names, and in the order, of `encode_document`."""
    names = ("document", "passage", "corpus")
    return prompts.get("query") or "", next((prompts[name] or "" for name in names if name in prompts), "")


def transformer_settings(read: Read, folder: str) -> dict[str, Any]:
    """What sentence-transformers keeps of the encoder in a subfolder."""
    return next((found for name in TRANSFORMER_FILES if (found := read(f"{folder}/{name}"))), {})


def read_lengths(read: Read, folder: str, published: bool) -> dict[str, Any]:
    """`query_length` and `passage_length` of the encoder in a subfolder. `published`: whether the model has files of
    sentence-transformers, which then cut where tokenizer and positions do."""
    if own := read(LENGTHS):
        return own
    most = transformer_settings(read, folder).get("max_seq_length")
    if most is None and published:
        tokenizer, config = (read(f"{folder}/{name}") or {} for name in ("tokenizer_config.json", "config.json"))
        limits = tokenizer.get("model_max_length"), config.get("max_position_embeddings")
        most = min((int(limit) for limit in limits if limit and 0 < limit < NO_LIMIT), default=None)
    if most is None:
        return {"query_length": QUERY_LENGTH, "passage_length": PASSAGE_LENGTH}
    return {"query_length": most, "passage_length": most}
