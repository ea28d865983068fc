"""The files of an annotate run folder."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from uar.annotation.annotators import Judged
from uar.llm.record import Request, Score
from uar.storage.files import write_jsonl, write_table, write_text

COLUMNS = (
    ("doc_id", pa.string()),
    ("label", pa.int8()),
    ("grade", pa.int32()),
    ("score", pa.float64()),
    ("rank", pa.int32()),
    ("uncertainty", pa.float64()),
)


def write_labels(folder: Path, judged: Judged) -> None:
    """`labels.parquet` and `labels.qrels` (TREC), one row a judged passage."""
    rows = [(q, j) for q, judgements in judged.items() for j in judgements]
    columns = {"query_id": pa.array([q for q, _ in rows], pa.string())}
    columns |= {name: pa.array([getattr(j, name) for _, j in rows], kind) for name, kind in COLUMNS}
    write_table(folder / "labels.parquet", pa.table(columns))
    write_text(folder / "labels.qrels", "".join(f"{q} 0 {j.doc_id} {j.label}\n" for q, j in rows))


def write_prompts(path: Path, asked: Iterable[tuple[str, str, Request]]) -> None:
    """One line a request: query_id, stage, and the messages or the prefix and target."""
    write_jsonl(
        path,
        (
            {"query_id": q, "stage": stage}
            | ({"prefix": r.prefix, "target": r.target} if isinstance(r, Score) else {"messages": r.chat()})
            for q, stage, r in asked
        ),
    )
