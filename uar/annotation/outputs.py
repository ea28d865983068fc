"""The files of an annotate run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from uar.annotation.chains import Progress
from uar.annotation.record import Record
from uar.annotation.stages import Judgement
from uar.files import write_jsonl, write_table, write_text


def write_labels(folder: Path, judged: Mapping[str, Sequence[Judgement]]) -> None:
    """`labels.parquet` and `labels.qrels` (TREC), one row a judged passage."""
    rows = [(q, j) for q, judgements in judged.items() for j in judgements]
    table = pa.table(
        {
            "query_id": pa.array([q for q, _ in rows], pa.string()),
            "doc_id": pa.array([j.doc_id for _, j in rows], pa.string()),
            "label": pa.array([j.label for _, j in rows], pa.int8()),
            "grade": pa.array([j.grade for _, j in rows], pa.int8()),
            "score": pa.array([j.score for _, j in rows], pa.float64()),
            "rank": pa.array([j.rank for _, j in rows], pa.int32()),
        }
    )
    write_table(folder / "labels.parquet", table)
    write_text(folder / "labels.qrels", "".join(f"{q} 0 {j.doc_id} {j.label}\n" for q, j in rows))


def write_failures(folder: Path, failures: Sequence[Record]) -> None:
    """`failures.jsonl`, one line a call that gave no label."""
    write_jsonl(
        folder / "failures.jsonl",
        (
            {"query_id": r.query_id, "stage": r.stage, "outcome": r.outcome, "doc_ids": r.doc_ids, "output": r.output}
            for r in failures
        ),
    )


def ledger(progress: Progress, queries: int, seconds: float, model: str) -> dict[str, Any]:
    """What the run cost: calls made and kept, tokens, wall seconds, rates."""
    computed = progress.tokens["tokens_in"] - progress.tokens["tokens_cached"]
    return {
        "model": model,
        "queries": queries,
        "calls": progress.asked,
        "calls_answered_by_store": progress.kept,
        "tokens_in": progress.tokens["tokens_in"],
        "tokens_cached": progress.tokens["tokens_cached"],
        "tokens_out": progress.tokens["tokens_out"],
        "seconds": round(seconds, 2),
        "calls_per_second": round(progress.asked / seconds, 2) if seconds else None,
        "computed_tokens_per_second": round((computed + progress.tokens["tokens_out"]) / seconds, 1) if seconds else None,
        "outcomes": {str(o): n for o, n in progress.outcomes.items()},
    }
