"""`labels.parquet`: what was trained on, and where each label came from."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from uar.labels.source import Stage
from uar.storage.files import whole_file

BLOCK = 1 << 17  # rows

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_id", pa.string()),
        ("label", pa.int8()),
        ("source", pa.string()),
        ("stage", pa.string()),
        ("utility", pa.float32()),
        ("weight", pa.float32()),
    ]
)


def write_label_table(path: Path, stages: Sequence[Stage]) -> None:
    """One row a (stage, query, passage): query_id, doc_id, label (1 positive, 0 negative), source, stage, utility (null where
    there is none), weight of the query. Written in blocks, since there may be millions."""
    rows = (
        (e.query_id, p.doc_id, p.label, p.source, stage.name, p.utility, e.weight)
        for stage in stages
        for e in stage.examples
        for p in e.pairs()
    )
    with whole_file(path) as beside, pq.ParquetWriter(beside, SCHEMA) as writer:
        while block := list(islice(rows, BLOCK)):
            columns = zip(zip(*block, strict=True), SCHEMA.types, strict=True)
            writer.write_table(pa.table([pa.array(values, kind) for values, kind in columns], schema=SCHEMA))
