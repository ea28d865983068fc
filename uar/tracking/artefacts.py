"""Files that one job makes and another takes, named by their content: annotations -> labels -> model -> evaluation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from uar.storage.files import read_json

LINEAGE = "lineage.json"  # in a run folder: the artefacts that the job took and made
WEIGHTS = (".safetensors", ".bin", ".pt")


@dataclass(frozen=True)
class Artefact:
    """`kind`: annotations, labels, model or evaluation. `files`: by their names within the artefact. Two artefacts of one name
    whose files have the same names and bytes are the same version of it, whichever job declares them."""

    kind: str
    name: str
    files: Mapping[str, Path]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def is_weights(self, name: str) -> bool:
        """Whether a file of it holds the weights of a model."""
        return self.kind == "model" and name.endswith(WEIGHTS)


def artefact_name(kind: str, what: str) -> str:
    """The name of an artefact, such as labels-mini.train."""
    return plain(f"{kind}-{what}")


def plain(name: str) -> str:
    """The letters, digits, dashes, underscores and dots of a name, which W&B allows, at most 64 of them."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:64]


def folder_artefact(kind: str, what: str, folder: Path, patterns: Sequence[str], **facts: Any) -> Artefact:
    """Of the files in `folder` that the patterns find. `what`: a slug."""
    paths = sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_file()})
    return Artefact(kind, artefact_name(kind, what), {p.relative_to(folder).as_posix(): p for p in paths}, facts)


def model_artefact(folder: Path) -> Artefact:
    """Of an exported model, under the name that the job which trained it gave it, or else that of its folder."""
    lineage = folder.resolve().parent / LINEAGE
    made = read_json(lineage)["made"] if lineage.is_file() else []
    name = next((a["name"] for a in made if a["kind"] == "model"), None)
    found = folder_artefact("model", folder.resolve().name, folder, ["**/*"])
    return replace(found, name=name) if name else found
