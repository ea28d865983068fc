"""Scores of an evaluation in the run's loggers: every number of metrics.json; tables and files in W&B."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from uar.collections import Collection
from uar.evaluation.metrics_file import read_metrics
from uar.evaluation.score_files import Values
from uar.evaluation.significance import read_scores
from uar.tracking.artefacts import folder_artefact
from uar.tracking.job import Job

Rows = list[list[Any]]


def track_evaluation(job: Job, folder: Path, collections: Sequence[Collection]) -> None:
    """Of a run folder that is written. Tables: `scores/<slug>`, a row a query, and `generations/<slug>`, a row an answer with
    its scores; the artefact of a collection holds its run, scores and generations."""
    metrics = read_metrics(folder)
    job.numbers(metrics)
    for collection in collections if job.tracks_files else ():
        slug = collection.slug
        scores = read_scores(folder, slug)
        queries = dict.fromkeys(q for of_measure in scores.values() for q in of_measure)
        table = [[q, collection.queries[q].text, *(of.get(q) for of in scores.values())] for q in queries]
        job.table(f"scores/{slug}", ["query_id", "query", *scores], table)
        answered = folder / "generations" / f"{slug}.parquet"
        if answered.is_file():
            job.table(f"generations/{slug}", *_generations(answered, scores, list(metrics["rag"].get(slug, {}))))
        files = [f"runs/{slug}.trec", f"runs/{slug}.rag.trec", f"scores/{slug}.parquet", f"generations/{slug}.parquet"]
        files.append(f"judged/{slug}.jsonl")
        made = folder_artefact("evaluation", slug, folder, files, **metrics["retrieval"].get(slug, {}))
        job.made(made)


def _generations(path: Path, scores: Values, rag: list[str]) -> tuple[list[str], Rows]:
    """(columns, rows): what the file says, and the RAG measures of each question and line."""
    rows = pq.read_table(path).to_pylist()
    lines = {row["line"] for row in rows}
    measures = [m for m in rag if any(_named(m, line) in scores for line in lines)]
    columns = list(rows[0]) if rows else []
    table = [[*row.values(), *(scores.get(_named(m, row["line"]), {}).get(row["query_id"]) for m in measures)] for row in rows]
    return [*columns, *measures], table


def _named(measure: str, line: str) -> str:
    """What a measure of a line is called among the scores."""
    return measure if line == "retrieved" else f"{measure} ({line})"
