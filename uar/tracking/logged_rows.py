"""Which rows a job has logged, so that its parts together log each once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uar.storage.files import read_json, write_json


class LoggedRows:
    """How many rows there are, and the last step of each metric, in a file that is written at each row. A part of a job that
    is killed leaves it; one that is not resumed begins anew."""

    def __init__(self, path: Path, resume: bool) -> None:
        self._path = path
        kept: dict[str, Any] = read_json(path) if resume and path.is_file() else {}
        self.rows: int = kept.get("rows", 0)
        self._steps: dict[str, int] = kept.get("steps", {})

    def new(self, metrics: Mapping[str, Any], step: int) -> dict[str, Any]:
        """Those of the metrics that have no row of this step or of a later one."""
        return {name: value for name, value in metrics.items() if self._steps.get(name, -1) < step}

    def add(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Call it after the row was logged; `step` None is that of a row outside of training."""
        self.rows += 1
        if step is not None:
            self._steps.update(dict.fromkeys(metrics, step))
        write_json(self._path, {"rows": self.rows, "steps": self._steps})
