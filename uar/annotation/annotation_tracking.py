"""Costs and quality of annotation in the run's loggers: numbers everywhere; figures, tables and artefacts in W&B."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uar.annotation.judgement import Judged
from uar.annotation.quality.disagreements import Disagreement, worst_disagreements
from uar.collections import Collection
from uar.storage.files import digest, read_json, write_json
from uar.storage.manifest import mask
from uar.tracking.artefacts import Artefact, artefact_name, folder_artefact
from uar.tracking.job import Job

FILES = ("labels.parquet", "labels.qrels", "ledger.json", "agreement.json", "failures.jsonl", "*.png")


@dataclass(frozen=True)
class Labelled:
    """What an annotator made of the replies of `models`."""

    annotator: Mapping[str, Any]
    models: Sequence[str]
    judged: Judged


def annotations_artefact(
    folder: Path, slug: str, collection_hash: str, labelled: Labelled, query_ids: Sequence[str]
) -> Artefact:
    """Of the judgements of `query_ids`. What they are is told by one small file, the same wherever they are used; the records
    themselves stay in the store, which has no end."""
    queries, pairs, positives, each = 0, 0, 0, hashlib.blake2b(digest_size=16)
    for query_id in sorted(query_ids):
        if (judged := labelled.judged.get(query_id)) is None:
            continue
        each.update(digest(query_id, [(j.doc_id, j.label, j.grade, j.score, j.rank) for j in judged]).encode())
        queries, pairs, positives = queries + 1, pairs + len(judged), positives + sum(j.label for j in judged)
    facts = {
        "collection": slug,
        "collection_hash": collection_hash,
        "annotator": mask(dict(labelled.annotator)),
        "models": list(labelled.models),
        "queries": queries,
        "pairs": pairs,
        "positives": positives,
        "digest": each.hexdigest(),
    }
    path = folder / "lineage" / f"annotations-{digest(facts)[:8]}.json"
    write_json(path, facts)
    return Artefact("annotations", artefact_name("annotations", slug), {"annotations.json": path}, facts)


def track(
    job: Job,
    folder: Path,
    spent: Mapping[str, Any],
    agreement: Mapping[str, Any] | None,
    collection: Collection,
    labelled: Labelled,
) -> None:
    """`spent`: the ledger; `agreement`: the agreement with people, where there is one."""
    job.numbers({"ledger": spent, "agreement": agreement or {}})
    if not job.tracks_files:
        return
    job.facts({"manifest": read_json(folder / "manifest.json")})
    for figure in sorted(folder.glob("*.png")):
        job.image(f"agreement/{figure.stem}", figure)
    job.table("disagreements", Disagreement._fields, worst_disagreements(collection, labelled.judged))
    artefact = annotations_artefact(folder, collection.slug, collection.hash, labelled, list(labelled.judged))
    job.made(artefact)
    job.made(folder_artefact("labels", collection.slug, folder, FILES, annotations=artefact.facts["digest"]))
