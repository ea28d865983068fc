"""How measures that compare with gold answers were computed, which the file of generations says in its metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from uar.collections import Collection
from uar.evaluation.rag.answer_measures import Measure
from uar.storage.files import digest

COMPUTED = "computed"  # in the metadata


def how_computed(collection: Collection, answered: Sequence[str], measures: Mapping[str, Measure]) -> dict[str, str]:
    """By measure, its definition and a hash of the gold answers of the questions that have some."""
    gold = digest({q: collection.queries[q].answers for q in answered})[:8]
    return {name: f"{measure.definition}; gold answers {gold}" for name, measure in measures.items()}


def read_computed(folder: Path, slug: str) -> dict[str, str]:
    """What a run folder says of the measures of a collection; empty where it says nothing."""
    try:
        metadata = pq.read_schema(folder / "generations" / f"{slug}.parquet").metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    found: dict[str, str] = json.loads(metadata.get(COMPUTED.encode(), b"{}"))
    return found
