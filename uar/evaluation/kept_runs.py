"""Runs of an evaluation that ended early: what its folder holds is not retrieved again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uar.storage.files import file_hash, read_json, write_json
from uar.storage.runs import Run, read_run, write_run


@dataclass(frozen=True)
class Retrieved:
    """A run, the seconds that it took, and what the search says of itself, such as `bytes_per_passage`."""

    run: Run
    seconds: float
    facts: Mapping[str, float] = field(default_factory=dict)


class KeptRuns:
    """`runs/SLUG.trec` in a run folder; `runs/made_by.json` has a key of all that made each, the file's hash, and what else is
    told of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "runs"
        self._file = self._folder / "made_by.json"

    def retrieved(self, slug: str, key: str | None, retrieve: Callable[[], Retrieved]) -> tuple[Retrieved, bool]:
        """What the folder has under that key, True, or what `retrieve` gives, False, which is kept. The key None is that of
        no other run."""
        path, made = self._path(slug), self._made()
        facts = made.get(slug, {})
        if key is not None and facts.get("key") == key and path.is_file() and facts["file"] == file_hash(path):
            return Retrieved(read_run(path), facts["seconds"], facts.get("facts", {})), True
        result = retrieve()
        write_run(path, result.run, "uar")
        if key is not None:
            told = {"seconds": result.seconds, "facts": result.facts}
            write_json(self._file, made | {slug: {"key": key, "file": file_hash(path), **told}})
        return result, False

    def standing(self, slug: str) -> Run:
        """The run of that name in the folder."""
        return read_run(self._path(slug))

    def _path(self, slug: str) -> Path:
        return self._folder / f"{slug}.trec"

    def _made(self) -> dict[str, Any]:
        try:
            made = read_json(self._file)
        except (OSError, ValueError):
            return {}
        return made if isinstance(made, dict) else {}
