"""What a model's own files say of it: pooling, normalisation, prompts, lengths, one encoder or two."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from uar.errors import UserError
from uar.storage.files import read_json

KINDS = ("Transformer", "Router", "Asym", "Pooling", "Normalize", "Dropout")
LENGTHS = "uar_lengths.json"  # of an exported model
QUERY_LENGTH, PASSAGE_LENGTH = 64, 256  # of a model whose files say nothing of these
LEGACY = "pooling_mode_"  # one true-or-false key a mode, before sentence-transformers 6


@dataclass(frozen=True)
class Published:
    """`passages`, `queries`: subfolders of the encoders, the second only where queries have one of their own. None, or no
    prompt of that name: the files do not say. `query_length`, `passage_length`: tokens, as the model was exported; of others
    the usual ones, and never more than their `max_seq_length`."""

    passages: str = ""
    queries: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    query_length: int = QUERY_LENGTH
    passage_length: int = PASSAGE_LENGTH

    @property
    def query_prefix(self) -> str:
        return self.prompts.get("query", "")

    @property
    def passage_prefix(self) -> str:
        names = ("document", "passage", "corpus")  # in the order of `encode_document`
        return next((self.prompts[name] for name in names if name in self.prompts), "")


def read_published(model: str, path: str, revision: str | None) -> Published:
    """`path`: a folder or an id on the hub, as `locate` gives it for `model`. UserError where the files ask for layers that
    are not built here."""

    def read(name: str) -> Any:
        file = _file(path, name, revision)
        return read_json(file) if file else None

    modules = read("modules.json") or []
    kinds = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
    if strange := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(
            f"retriever.model={model}: its modules.json has {', '.join(strange)}, which is not supported; "
            "choose a model of an encoder, pooling and normalisation"
        )
    passages, queries = _encoders(model, read, kinds)
    settings = read("config_sentence_transformers.json") or {}
    return Published(
        passages,
        queries,
        _pooling(read(f"{kinds.get('Pooling', '1_Pooling')}/config.json")),
        "Normalize" in kinds if modules else None,
        settings.get("prompts") or {},
        **(read(LENGTHS) or _usual_lengths(read(f"{passages}/sentence_bert_config.json".lstrip("/")))),
    )


def _usual_lengths(config: Mapping[str, Any] | None) -> dict[str, int]:
    most = (config or {}).get("max_seq_length") or PASSAGE_LENGTH
    return {"query_length": min(QUERY_LENGTH, most), "passage_length": min(PASSAGE_LENGTH, most)}


def _encoders(model: str, read: Any, kinds: Mapping[str, str]) -> tuple[str, str | None]:
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
    modes = config.get("pooling_mode") or [
        key.removeprefix(LEGACY).removesuffix("_token").removesuffix("_tokens")
        for key, chosen in config.items()
        if key.startswith(LEGACY) and chosen
    ]
    name = modes if isinstance(modes, str) else "+".join(modes) or "mean"
    return name if config.get("include_prompt", True) else f"{name} without the prompt"


def _file(path: str, name: str, revision: str | None) -> Path | None:
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
