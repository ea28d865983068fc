"""W&B: one run a job, offline unless a key is there, with tables and artefacts."""

import logging
import netrc
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from uar.errors import UserError
from uar.storage.files import write_text
from uar.tracking.artefacts import Artefact, plain
from uar.tracking.stages import StageStart
from uar.tracking.wandb_parts import Journal, steps_kept

log = logging.getLogger(__name__)
DATA_DIR = "WANDB_DATA_DIR"
CONNECT_SECONDS = 5.0


class RunWandb(WandbLogger):
    """The job's one run. Its x axis, `trainer/global_step`, goes on from stage to stage; `stage` and `stage_name` stand in
    every row of a training's history, whose steps they are. Where a job is resumed, its parts together have every step once:
    it does not log again what W&B has, and logs first what W&B lost when the job was killed.

    `log_model`: weights are uploaded, not only named with size and hash. `max_mb`, `max_rows`: larger files of artefacts are
    named likewise, longer tables are cut.
    """

    def __init__(self, folder: str, *, resumed: bool, log_model: bool, max_mb: float, max_rows: int, **init: Any) -> None:
        super().__init__(save_dir=folder, **init)
        self._wandb_init.pop("anonymous", None)  # told to be without effect, each time
        self._keeps_weights, self._max_bytes, self._max_rows = log_model, max_mb * 1e6, max_rows
        self._resumed, self._offset, self._last = resumed, 0, 0
        self._mark: dict[str, Any] = {}
        self._folder = Path(folder)
        self._journal = Journal(self._folder / "wandb.rows.jsonl", resumed)
        self._kept = steps_kept(self._folder, init["id"]) if resumed else 0

    def begin(self, stage: StageStart) -> None:
        self._offset = self._last = stage.steps_before
        self._mark = {"stage": float(stage.number), "stage_name": stage.name}
        if self._resumed:
            self._kept = max(self._kept, self.experiment.starting_step)
            for step, row in self._journal.rows(self._kept, self._last + stage.step):
                self.experiment.log(row, step=step)
        self._resumed = False

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if rank_zero_only.rank > 0:
            return
        if step is None:
            at = max(self._last, self._kept) if self._mark else None  # outside of training W&B counts the rows
            self.experiment.log({**metrics, "trainer/global_step": self._last}, step=at)
            return
        self._last = self._offset + step
        if self._last >= self._kept:
            row = {**metrics, **self._mark, "trainer/global_step": self._last}
            self._journal.add(row, self._last)
            self.experiment.log(row, step=self._last)

    def log_rows(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table, and with it the artefact that W&B makes of each. Lists become text; nothing where there are no rows."""
        import wandb

        if not rows:
            return
        if len(rows) > self._max_rows:
            log.info("W&B: %s has %d rows, of which the first %d are sent", name, len(rows), self._max_rows)
        data = [[_cell(value) for value in row] for row in rows[: self._max_rows]]
        with self._own_data():
            self.log_metrics({name: wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)})

    def make(self, artefact: Artefact) -> str:
        """Log what the job made; the hash of its content."""
        with self._own_data():
            draft = self._draft(artefact)
            self.experiment.log_artifact(draft, aliases=["latest", plain(self._folder.resolve().name)])
        return str(draft.digest)

    def take(self, artefact: Artefact) -> str:
        """Declare what the job used; the hash of its content. W&B joins it with the version of the same content that another
        job made, whichever is uploaded first."""
        run = self.experiment
        with self._own_data():
            draft = self._draft(artefact)
            if run.settings.mode == "online":
                run.use_artifact(draft)
            else:  # the public method is for online runs alone; the record that it writes is one that `wandb sync` replays
                run._log_artifact(draft, is_user_created=True, use_after_commit=True)
        return str(draft.digest)

    def end(self, failed: bool) -> None:
        with self._own_data():
            self.experiment.finish(exit_code=int(failed))
        if not failed:
            self._journal.close()

    def _draft(self, artefact: Artefact) -> Any:
        import wandb

        draft = wandb.Artifact(artefact.name, artefact.kind, metadata=dict(artefact.facts))
        for name, path in artefact.files.items():
            path = path.resolve()
            if path.stat().st_size > self._max_bytes or (artefact.is_weights(name) and not self._keeps_weights):
                draft.add_reference(f"file://{path}", name=name)
            else:
                draft.add_file(str(path), name=name, policy="immutable")
        return draft

    @contextmanager
    def _own_data(self) -> Iterator[None]:
        """Files that wait for an upload lie in the run folder, unless the user's environment says where, not in the home."""
        given = os.environ.get(DATA_DIR)
        os.environ[DATA_DIR] = given or str((self._folder / "wandb").resolve())
        try:
            yield
        finally:
            if given is None:
                del os.environ[DATA_DIR]


def wandb_logger(
    folder: str,
    project: str,
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    mode: str = "auto",
    log_model: bool = False,
    max_mb: float = 100,
    max_rows: int = 10_000,
    resume: bool = False,
    args: bool = True,
) -> RunWandb | None:
    """One W&B run for the job, the same one where the job is resumed. `mode`: auto (what WANDB_MODE says, else online where a
    key is known and the server can be reached, else offline), online, offline or disabled, which gives no logger. `name`:
    None is the folder's. `args`: whether the command line is kept, which may hold what the config masks."""
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() and _is_there() else "offline")
    if mode == "disabled":
        return None
    if mode not in ("online", "offline"):
        raise UserError(f"logger.wandb.mode={mode!r}; allowed: auto, online, offline, disabled")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return RunWandb(
        folder,
        resumed=resume and rank_zero_only.rank == 0,
        log_model=log_model,
        max_mb=max_mb,
        max_rows=max_rows,
        project=project,
        name=name or Path(folder).resolve().name,
        group=group,
        job_type=job_type,
        mode=mode,
        id=_run_id(folder, resume),
        resume="allow",
        settings=wandb.Settings(x_disable_meta=not args, save_code=False),
    )


def _cell(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _run_id(folder: str, resume: bool) -> str:
    """Kept in the run folder by process 0, which alone has a run."""
    path = Path(folder) / "wandb.id"
    if resume and path.is_file():
        return path.read_text()
    chosen = secrets.token_hex(4)
    if rank_zero_only.rank == 0:
        write_text(path, chosen)
    return chosen


def has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(_server().hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _server() -> SplitResult:
    return urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))


def _is_there() -> bool:
    """Whether the server, or the proxy on the way to it, takes connections; W&B would end the job where it does not."""
    server = _server()
    proxy = None if proxy_bypass(server.hostname or "") else getproxies().get(server.scheme)
    first = urlsplit(proxy) if proxy else server
    try:
        address = (first.hostname or "", first.port or (443 if first.scheme == "https" else 80))
        socket.create_connection(address, CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        if rank_zero_only.rank == 0:
            log.warning(
                "W&B: %s cannot be reached (%s), so the run is kept offline; `wandb sync` uploads it", server.netloc, error
            )
        return False
    return True
