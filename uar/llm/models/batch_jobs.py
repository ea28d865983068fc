"""Batches that a server works on, as they are remembered on disk: a run that was killed goes on with them."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from uar.errors import DataError
from uar.storage.files import digest, read_json, write_json

log = logging.getLogger(__name__)


@dataclass
class Job:
    """`waiting`: names of the calls in the file that nobody took the replies of; `server`: the base URL, without credentials;
    `file`: what the server calls the uploaded file, `batch`: what it calls the batch, empty before it is known."""

    path: Path
    server: str
    model: str
    waiting: list[str]
    file: str = ""
    batch: str = ""
    told: str = field(default="", compare=False)  # what was last said of it

    def keep(self) -> None:
        known = asdict(self)
        write_json(self.path, {name: known[name] for name in ("server", "model", "file", "batch", "waiting")})

    def took(self, names: Collection[str]) -> None:
        """Forget calls whose replies are kept elsewhere; without any left the job is forgotten."""
        self.waiting = [name for name in self.waiting if name not in names]
        if self.waiting:
            self.keep()
        else:
            self.path.unlink(missing_ok=True)


def begin_job(folder: Path, server: str, model: str, names: Sequence[str], file: str) -> Job:
    """Of a file that was uploaded: kept before the batch is asked for, so that it is not asked for twice."""
    job = Job(folder / f"{digest(server, file, list(names))}.json", server, model, list(names), file)
    job.keep()
    return job


def kept_jobs(folder: Path, server: str, model: str) -> list[Job]:
    """Those of a model at a server, oldest first. DataError where one cannot be read."""
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda p: (p.stat().st_mtime, p.name)):
        try:
            known = read_json(path)
            job = Job(path, known["server"], known["model"], list(known["waiting"]), known["file"], known["batch"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(path, "not a batch that llm=openai_batch remembers; move the file away") from error
        if (job.server, job.model) == (server, model):
            found.append(job)
    return found
