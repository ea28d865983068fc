"""Files that one job makes and another takes, named by their content: annotations -> labels -> model -> evaluation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from uar.annotation.judgement import Judged
from uar.storage.files import digest, read_json, write_json
from uar.storage.manifest import mask

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


@dataclass(frozen=True)
class Annotations:
    """What an annotator made of the replies of `models`."""

    annotator: Mapping[str, Any]
    models: Sequence[str]
    judged: Judged


def artefact_name(kind: str, what: str) -> str:
    """The name of an artefact, such as labels-mini.train."""
    return plain(f"{kind}-{what}")


def plain(name: str) -> str:
    """The letters, digits, dashes, underscores and dots of a name, which W&B allows, at most 64 of them."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:64]


def annotations_artefact(
    folder: Path, slug: str, collection_hash: str, found: Annotations, query_ids: Sequence[str]
) -> Artefact:
    """Of the judgements of `query_ids`. What they are is told by one small file, the same wherever they are used; the records
    themselves stay in the store, which has no end."""
    judged = [(q, found.judged[q]) for q in sorted(query_ids) if q in found.judged]
    rows = [(q, j.doc_id, j.label, j.grade, j.score, j.rank) for q, judgements in judged for j in judgements]
    facts = {
        "collection": slug,
        "collection_hash": collection_hash,
        "annotator": mask(dict(found.annotator)),
        "models": list(found.models),
        "queries": len(judged),
        "pairs": len(rows),
        "positives": sum(row[2] for row in rows),
        "digest": digest(rows),
    }
    path = folder / "lineage" / f"annotations-{digest(facts)[:8]}.json"
    write_json(path, facts)
    return Artefact("annotations", artefact_name("annotations", slug), {"annotations.json": path}, facts)


def folder_artefact(kind: str, what: str, folder: Path, patterns: Sequence[str], **facts: Any) -> Artefact:
    """Of the files in `folder` that the patterns find. `what`: a slug."""
    paths = sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_file()})
    return Artefact(kind, artefact_name(kind, what), {p.relative_to(folder).as_posix(): p for p in paths}, facts)


def model_artefact(folder: Path) -> Artefact:
    """Of an exported model, under the name that the job which trained it gave it, or else that of its folder."""
    told = folder.resolve().parent / LINEAGE
    made = read_json(told)["made"] if told.is_file() else []
    name = next((a["name"] for a in made if a["kind"] == "model"), None)
    found = folder_artefact("model", folder.resolve().name, folder, ["**/*"])
    return replace(found, name=name) if name else found
