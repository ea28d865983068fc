"""Run folders written by hand, for what no small run can show: many collections, exact differences, broken files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from uar.reporting.rows import Row, rows_of
from uar.reporting.run_folders import find_runs

TARGETS = {"human": "HumanLabels", "llm": "LLMLabels", "mixed": "MixedLabels", "qa_metric": "QAMetricLabels"}


def write_run(
    folder: Path,
    retrieval: Mapping[str, Mapping[str, float]] | None = None,
    rag: Mapping[str, Mapping[str, Any]] | None = None,
    scores: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    **config: Any,
) -> Path:
    """`scores`: by slug, measure and query id. `config`: dotted names with `__` for the dots."""
    folder.mkdir(parents=True)
    found: dict[str, Any] = {"seed": 0}
    for name, value in config.items():
        *parents, last = name.replace("__", ".").split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(found))
    metrics = {"retrieval": retrieval or {}, "rag": rag or {}, "train": {}, "time": {}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    for slug, measures in (scores or {}).items():
        rows = [{"query_id": q, "measure": m, "value": v} for m, found in measures.items() for q, v in found.items()]
        write_parquet(folder / "scores" / f"{slug}.parquet", rows)
    return folder


def labels(source: str, **more: Any) -> dict[str, Any]:
    """Config of a label source."""
    return {"label_source___target_": f"uar.labels.{TARGETS[source]}", **more}


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_labels(folder: Path, rows: list[tuple[str, str, int, str, str]]) -> None:
    """(query id, passage id, label, source, stage)"""
    names = ("query_id", "doc_id", "label", "source", "stage")
    write_parquet(folder / "labels.parquet", [dict(zip(names, row, strict=True)) for row in rows])


def rows_in(tmp_path: Path, pattern: str = "*") -> list[Row]:
    """Of the folders there."""
    return rows_of(find_runs([str(tmp_path / pattern)]).runs)
