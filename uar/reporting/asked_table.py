"""What calls of LLMs besides those of labels cost."""

from collections.abc import Sequence
from dataclasses import replace

from uar.reporting.result_table import Column, Table, plain_table
from uar.reporting.rows import Row

USES = {
    "rerank": "re-ranking",
    "expand": "expansion",
    "variants": "variants",
    "rag answers": "RAG answers",
    "rag judges": "RAG judges",
}
SHOWN = [
    ("calls", "calls", 0),
    ("calls_answered_by_store", "from the store", 0),
    ("tokens_in", "tokens read", 0),
    ("tokens_out", "tokens written", 0),
    ("seconds", "seconds", 1),
    ("gpu_hours", "GPU-hours", 3),
    ("cost", "cost", 2),
]


def asked_table(rows: Sequence[Row]) -> Table | None:
    """Of re-ranking, expansion and RAG, by row; a mean over its seeds."""
    uses = dict.fromkeys(use for row in rows for run in row.folders for use in run.asked)
    wanted = [(use, *of) for use in uses for of in SHOWN if any(row.values("asked", use, of[0]) for row in rows)]
    columns = [
        Column(USES.get(use, use), heading, digits=digits, lower=True, ranked=name in ("seconds", "gpu_hours", "cost"))
        for use, name, heading, digits in wanted
    ]
    table = plain_table("asked", "Cost of other calls", rows, [("asked", use, name) for use, name, *_ in wanted], columns, {})
    told = "Of what the run asked: calls that the store answered took nothing."
    return replace(table, notes=[told]) if table else None
