"""`labels.parquet` of a train run: what was trained on, and where each label came from."""

from collections.abc import Sequence
from pathlib import Path

from uar.labels.source import Stage
from uar.storage.label_files import write_label_file

COLUMNS = ("query_id", "doc_id", "label", "source", "stage", "utility", "weight")


def write_label_table(path: Path, stages: Sequence[Stage]) -> None:
    """One row a (stage, query, passage): query_id, doc_id, label (1 positive, 0 negative), source, stage, utility (null where
    there is none), weight of the query."""
    rows = (
        (e.query_id, p.doc_id, p.label, p.source, stage.name, p.utility, e.weight)
        for stage in stages
        for e in stage.examples
        for p in e.pairs()
    )
    write_label_file(path, COLUMNS, rows)
