"""What an offline run of W&B says: its file is a LevelDB log of protocol buffers, after a header of 7 bytes."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uar.tracking.wandb_parts import records


@dataclass
class Made:
    kind: str
    name: str
    digest: str
    taken: bool
    uploaded: dict[str, Path]
    referred: dict[str, str]
    facts: dict[str, Any]


@dataclass
class OfflineRun:
    folder: Path
    id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artefacts: list[Made] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def values(self, name: str) -> list[Any]:
        """All that the history has under a name."""
        return [row[name] for row in self.history if name in row]

    def table(self, name: str) -> list[dict[str, Any]]:
        """Rows of the table that was logged under a name."""
        told = json.loads((self.folder / "files" / self.summary[f"{name}.path"]).read_text())
        return [dict(zip(told["columns"], row, strict=True)) for row in told["data"]]

    def of(self, kind: str) -> Made:
        """The artefact of a kind."""
        (found,) = (a for a in self.artefacts if a.kind == kind)
        return found


def offline_run(run_folder: Path) -> OfflineRun:
    """The only offline run in a run folder."""
    (folder,) = (run_folder / "wandb").glob("offline-run-*")
    return read_run(folder)


def read_run(folder: Path) -> OfflineRun:
    run = OfflineRun(folder)
    (path,) = folder.glob("*.wandb")
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            told = record.run
            run.id, run.project, run.name = told.run_id, told.project, told.display_name
            run.group, run.job_type = told.run_group, told.job_type
            run.config |= {item.key: json.loads(item.value_json) for item in told.config.update}
        elif kind == "config":
            run.config |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            run.history.append(
                {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
        elif kind == "summary":
            run.summary |= {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
            }
        elif kind == "artifact":
            run.artefacts.append(_artefact(record.artifact))
        elif kind == "environment":
            run.arguments += record.environment.args
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _artefact(told: Any) -> Made:
    files = told.manifest.contents
    return Made(
        told.type,
        told.name,
        told.digest,
        told.use_after_commit,
        {f.path: Path(f.local_path) for f in files if not f.ref},
        {f.path: f.ref for f in files if f.ref},
        json.loads(told.metadata or "{}"),
    )
