"""Costs and quality of annotation in the run's loggers: numbers everywhere; figures, tables and artefacts in W&B."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uar.annotation.quality.disagreements import Disagreement, worst_disagreements
from uar.collections import Collection
from uar.storage.files import read_json
from uar.tracking.artefacts import Annotations, annotations_artefact, folder_artefact
from uar.tracking.job import Job

FILES = ("labels.parquet", "labels.qrels", "ledger.json", "agreement.json", "failures.jsonl", "*.png")


def track(
    job: Job,
    folder: Path,
    spent: Mapping[str, Any],
    found: Mapping[str, Any] | None,
    collection: Collection,
    annotations: Annotations,
) -> None:
    """`spent`: the ledger; `found`: the agreement with people, where there is one."""
    job.numbers({"ledger": spent, "agreement": found or {}})
    if not job.tracks_files:
        return
    job.facts({"manifest": read_json(folder / "manifest.json")})
    for figure in sorted(folder.glob("*.png")):
        job.image(f"agreement/{figure.stem}", figure)
    job.table("disagreements", Disagreement._fields, worst_disagreements(collection, annotations.judged))
    told = annotations_artefact(folder, collection.slug, collection.hash, annotations, list(annotations.judged))
    job.made(told)
    job.made(folder_artefact("labels", collection.slug, folder, FILES, annotations=told.facts["digest"]))
