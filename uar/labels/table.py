"""`labels.parquet`: what was trained on, and where each label came from."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from uar.files import write_table
from uar.labels.source import Stage


def write_label_table(path: Path, stages: Sequence[Stage]) -> None:
    """One row a (stage, query, passage): query_id, doc_id, label (1 positive, 0 negative), source, stage."""
    rows = [
        (e.query_id, d, label, e.source, stage.name)
        for stage in stages
        for e in stage.examples
        for label, ids in ((1, e.positives), (0, e.negatives))
        for d in ids
    ]
    names = ("query_id", "doc_id", "label", "source", "stage")
    types = (pa.string(), pa.string(), pa.int8(), pa.string(), pa.string())
    columns = {n: pa.array([row[i] for row in rows], t) for i, (n, t) in enumerate(zip(names, types, strict=True))}
    write_table(path, pa.table(columns))
