"""Run folders found by pattern, with their metrics."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uar.errors import UserError
from uar.evaluation.metrics_file import read_metrics


@dataclass(frozen=True)
class RunFolder:
    name: str
    metrics: dict[str, Any]


def find_runs(patterns: Sequence[str]) -> list[RunFolder]:
    """Folders that hold a metrics.json, in the order of the patterns; UserError where there is none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        found.update(dict.fromkeys(Path(p) for p in sorted(glob.glob(pattern)) if (Path(p) / "metrics.json").is_file()))
    if not found:
        raise UserError(f"runs={list(patterns)}: no folder with a metrics.json; give run folders or patterns of them")
    return [RunFolder(path.name, read_metrics(path)) for path in found]
