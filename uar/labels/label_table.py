"""`labels.parquet` of a train run: what was trained on, and where each label came from."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from uar.labels.example_columns import Examples
from uar.labels.source import Stage
from uar.storage.label_files import write_label_blocks, write_label_file

COLUMNS = ("query_id", "doc_id", "label", "source", "stage", "utility", "weight")
BLOCK = 4_096  # queries


def write_label_table(path: Path, stages: Sequence[Stage]) -> None:
    """One row a (stage, query, passage): query_id, doc_id, label (1 positive, 0 negative), source, stage, utility (null where
    there is none), weight of the query."""
    packed = [(stage.name, stage.examples) for stage in stages if isinstance(stage.examples, Examples)]
    if len(packed) == len(stages):
        write_label_blocks(path, (block for name, examples in packed for block in _blocks(name, examples)))
        return
    rows = (
        (e.query_id, p.doc_id, p.label, p.source, stage.name, p.utility, e.weight)
        for stage in stages
        for e in stage.examples
        for p in e.pairs()
    )
    write_label_file(path, COLUMNS, rows)


def _blocks(stage: str, examples: Examples) -> Iterator[dict[str, pa.Array]]:
    of, labels, names = examples.columns, examples.labels(), pa.array(examples.names, pa.string())
    for start in range(0, len(examples), BLOCK):
        end = min(start + BLOCK, len(examples))
        pairs = slice(int(examples.ends[start]), int(examples.ends[end]))
        query = np.repeat(np.arange(end - start), of.sizes[start:end])
        utility = of.utility[pairs]
        yield {
            "query_id": pa.array(examples.query_ids[start:end], pa.string()).take(pa.array(query)),
            "doc_id": examples.passages.id_column(of.rows[pairs]),
            "label": pa.array(labels[pairs].astype(np.int8)),
            "source": names.take(pa.array(of.source[pairs])),
            "stage": pa.repeat(pa.scalar(stage, pa.string()), len(query)),
            "utility": pa.array(utility.astype(np.float32), mask=np.isnan(utility)),
            "weight": pa.array(of.weight[start:end][query].astype(np.float32)),
        }
