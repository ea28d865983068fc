"""`metrics.json`: {"retrieval": {slug: {...}}, "rag": {slug: {...}}, "train": {...}, "time": {...}}."""

from pathlib import Path
from typing import Any

from uar.files import read_json, write_json

PARTS = ("retrieval", "rag", "train", "time")


def read_metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    found = read_json(path) if path.is_file() else {}
    return {part: found.get(part, {}) for part in PARTS}


def update_metrics(folder: Path, **parts: dict[str, Any]) -> None:
    """Merge values into the file's parts, so that a kill between two steps loses neither."""
    metrics = read_metrics(folder)
    for part, values in parts.items():
        metrics[part].update(values)
    write_json(folder / "metrics.json", metrics)
