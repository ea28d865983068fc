"""A job's loggers behind one face: numbers go to all of them, tables, figures and artefacts to W&B."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.storage.files import write_json
from uar.storage.manifest import mask
from uar.tracking.artefacts import LINEAGE, Artefact
from uar.tracking.typed import typed


class Job:
    """`loggers`: as Lightning takes them."""

    def __init__(self, loggers: list[Any], folder: Path) -> None:
        self.loggers, self._folder = loggers, folder
        self._lineage: dict[str, list[dict[str, str]]] = {"took": [], "made": []}

    @property
    def tracks_files(self) -> bool:
        """Whether a logger takes tables and artefacts."""
        return bool(self._wandb())

    def numbers(self, values: Mapping[str, Any]) -> None:
        """Log the numbers of nested `values`, each under its path, as `retrieval/mini.test/nDCG@10`; what is true is 1."""
        found = {name: float(v) for name, v in flat(values, "/").items() if isinstance(v, int | float)}
        if found:
            for logger in self.loggers:
                logger.log_metrics(found)

    def facts(self, values: Mapping[str, Any]) -> None:
        """Add to the config of the W&B run."""
        for logger in self._wandb():
            logger.experiment.config.update(flat(mask(dict(values)), "."), allow_val_change=True)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for logger in self._wandb():
            logger.log_rows(name, columns, rows)

    def image(self, name: str, path: Path) -> None:
        for logger in self._wandb():
            logger.log_image(name, [str(path)])

    def took(self, artefact: Artefact) -> None:
        """Declare an artefact that the job used."""
        for logger in self._wandb():
            self._note("took", artefact, logger.take(artefact))

    def made(self, artefact: Artefact) -> None:
        """Keep an artefact that the job made."""
        for logger in self._wandb():
            self._note("made", artefact, logger.make(artefact))

    def _note(self, how: str, artefact: Artefact, content: str) -> None:
        """In the run folder, where the job that comes next looks, and in the config of the run."""
        self._lineage[how].append({"kind": artefact.kind, "name": artefact.name, "digest": content})
        write_json(self._folder / LINEAGE, self._lineage)
        self.facts({f"lineage.{how}": [f"{a['name']} {a['digest']}" for a in self._lineage[how]]})

    def _wandb(self) -> list[Any]:
        """On process 0 alone."""
        if not self.loggers:
            return []
        from lightning.pytorch.utilities.rank_zero import rank_zero_only

        return [logger for logger in self.loggers if hasattr(logger, "take")] if rank_zero_only.rank == 0 else []

    def finish(self, failed: bool) -> None:
        for logger in self.loggers:
            logger.finalize("failed" if failed else "success")
            logger.save()
        for logger in self._wandb():
            logger.end(failed)


@contextmanager
def tracked(cfg: DictConfig, folder: Path) -> Iterator[Job]:
    """The job of a composed config while the block runs, its config logged with secrets masked. The W&B run ends with the
    block, as failed where the block fails, so that the next job of the process has its own. Where `logger` names nothing,
    nothing is imported."""
    job = Job(_open(cfg) if cfg.logger else [], folder)
    failed = True
    try:
        yield job
        failed = False
    finally:
        job.finish(failed)


def _open(cfg: DictConfig) -> list[Any]:
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    masked = mask(plain)
    more = {"wandb": {"args": masked == plain}}
    opened = [hydra.utils.instantiate(logger, **more.get(name, {})) for name, logger in cfg.logger.items()]
    loggers = [logger for logger in opened if logger is not None]
    for logger in loggers:
        logger.log_hyperparams({**flat(masked, "."), "row": _row()})
    return loggers


def _row() -> str:
    """What the command line sets besides the seed, secrets masked: of jobs that share it, pages show the mean."""
    given = typed()
    kept = []
    for word in given.dirname.split(",") if given else ():
        name, equals, value = word.partition("=")
        last = name.lstrip("+~").rpartition(".")[2]
        if name != "seed":
            kept.append(f"{mask(name)}{equals}{mask({last: value})[last]}")
    return ",".join(filter(None, kept)) or (given.config_name if given else "")


def flat(values: Mapping[str, Any], joint: str) -> dict[str, Any]:
    """Nested mappings as one, whose names are the paths; an empty mapping has none."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}{joint}{below}": v for below, v in flat(value, joint).items()}
        else:
            found[str(name)] = value
    return found
