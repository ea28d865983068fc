"""`metrics.json`: {"retrieval": {slug: {...}}, "rag": {slug: {...}}, "train": {...}, "time": {...}}."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from uar.storage.files import read_json, write_json

PARTS = ("retrieval", "rag", "train", "time")
BEFORE, AFTER = "dev nDCG@10 before", "best dev nDCG@10"  # of a stage, under train
GIVEN_KEPT = "given weights kept"  # of the last stage: whether the model has the weights from before training


def read_metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    found = read_json(path) if path.is_file() else {}
    return {part: found.get(part, {}) for part in PARTS}


def given_kept(train: Mapping[str, Mapping[str, Any]]) -> tuple[float, float] | None:
    """The dev scores before and after a training whose weights were not kept, since they are worse than those from before;
    None where they were kept. `train`: that part of the file."""
    stages = list(train.values())
    return (stages[0][BEFORE], stages[-1][AFTER]) if any(of_stage.get(GIVEN_KEPT) for of_stage in stages) else None


def update_metrics(folder: Path, **parts: dict[str, Any]) -> None:
    """Merge values into the file's parts, so that a kill between two steps loses neither."""
    metrics = read_metrics(folder)
    for part, values in parts.items():
        metrics[part].update(values)
    write_json(folder / "metrics.json", metrics)


def forget_evaluation(folder: Path, slugs: Collection[str]) -> None:
    """Remove what an earlier evaluation left in the folder: its values, and its files of other collections than `slugs`; of
    those, what only RAG, LLMs that rank, a baseline and estimates write."""
    metrics = read_metrics(folder)
    for slug in {*metrics["retrieval"], *metrics["rag"], *slugs}:
        names = [f"runs/{slug}.rag.trec", f"generations/{slug}.parquet"]
        names += [f"judged/{slug}.jsonl", f"judged/{slug}.failures.jsonl"]
        names += [] if slug in slugs else [f"runs/{slug}.trec", f"scores/{slug}.parquet"]
        for name in names:
            (folder / name).unlink(missing_ok=True)
    asked = [f"{use}_{file}" for use in ("rerank", "expand") for file in ("ledger.json", "failures.jsonl")]
    for name in ("significance.json", "baselines.json", "robustness.json", "estimates.json", "rag_ledger.json", *asked):
        (folder / name).unlink(missing_ok=True)
    times = {name: value for name, value in metrics["time"].items() if name.split()[0] not in ("retrieval", "rag")}
    if any(metrics.values()):
        write_json(folder / "metrics.json", metrics | {"retrieval": {}, "rag": {}, "time": times})
