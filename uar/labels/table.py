"""`labels.parquet`: what was trained on, and where each label came from."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from uar.files import write_table
from uar.labels.source import Stage

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_id", pa.string()),
        ("label", pa.int8()),
        ("source", pa.string()),
        ("stage", pa.string()),
        ("utility", pa.float32()),
    ]
)


def write_label_table(path: Path, stages: Sequence[Stage]) -> None:
    """One row a (stage, query, passage): query_id, doc_id, label (1 positive, 0 negative), source, stage, utility (null where
    there is none)."""
    rows = [
        (e.query_id, p.doc_id, p.label, p.source, stage.name, p.utility)
        for stage in stages
        for e in stage.examples
        for p in e.pairs()
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    write_table(path, pa.table([pa.array(c, t) for c, t in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA))
