"""What a run trains on and how, as hashes: a run is only resumed as what it was, and another one starts with nothing of it."""

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from uar.errors import UserError
from uar.evaluation.metrics_file import read_metrics
from uar.labels import Stage
from uar.labels.example_columns import Examples
from uar.losses import Loss, name_of
from uar.storage.files import cache_dir, digest, read_json, write_json

log = logging.getLogger(__name__)
HASH = 32  # digits
NO_PART = {  # options that say how a run computes, or what is told of it, and change none of its results
    "training": {"checkpoint_every", "keep_checkpoints", "grad_cache", "step_queries"},
    "retriever": {"token_budget", "compile", "gradient_checkpointing"},
    "trainer": {  # precision and devices have hashes of their own
        "accelerator", "devices", "num_nodes", "strategy", "precision", "log_every_n_steps", "enable_progress_bar",
    },
}  # fmt: skip


def label_hash(stages: Sequence[Stage]) -> str:
    """Of every pair that is trained on, its label, utility and weight. Of labels in columns it is remembered in the cache."""
    prints = [(s.name, s.examples.fingerprint) for s in stages if isinstance(s.examples, Examples)]
    if len(prints) < len(stages):
        return _label_hash(stages)
    memo = cache_dir() / "hashes" / f"labels-{digest(prints)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or broken: hashed anew
        return str(read_json(memo)["hash"])
    value = _label_hash(stages)
    write_json(memo, {"hash": value})
    return value


def _label_hash(stages: Sequence[Stage]) -> str:
    """Query by query, since there may be millions of pairs."""
    whole = hashlib.blake2b(digest_size=16)
    for stage in stages:
        for example in stage.examples:
            whole.update(digest(stage.name, example.query_id, list(example.pairs()), example.ignored, example.weight).encode())
    return whole.hexdigest()


def loss_hash(stages: Sequence[Stage], loss: Loss) -> str:
    """Of the losses of all stages and their settings."""
    chosen = [stage.loss or loss for stage in stages]
    return digest([(name_of(x), getattr(x, "keywords", {})) for x in chosen])


def schedule_hash(stages: Sequence[Stage], *settings: object) -> str:
    """Of how long, how fast and in what batches is trained."""
    own = [(s.name, s.epochs, s.positives, s.learning_rate, s.warmup, s.batch_size, s.passages_per_query) for s in stages]
    return digest(own, *settings)


def parts_of(group: str, cfg: DictConfig) -> dict[str, Any]:
    """The options of a group of a train config that make a run what it is; a resumed one may have others of NO_PART."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg[group], resolve=True)  # type: ignore[assignment]
    return {name: value for name, value in plain.items() if name not in NO_PART[group]}


def options_named(name: str, settings: Any) -> list[Any]:
    """What nested settings say of the options of that name."""
    if not isinstance(settings, dict):
        return []
    own = [settings[name]] if name in settings else []
    return own + [value for below in settings.values() for value in options_named(name, below)]


def keep_identity(path: Path, now: Mapping[str, str], resume: bool) -> None:
    """Write the hashes; with `resume` compare them with those written before, UserError naming what differs."""
    if resume and path.is_file():
        then = read_json(path)
        changed = [
            f"{name} ({_short(then.get(name, 'unknown'))} then, {_short(now[name])} now)"
            for name in now
            if then.get(name) != now[name]
        ]
        if changed:
            raise UserError(
                f"resume=true: the run in {path.parent.parent} was started with another {', another '.join(changed)}; "
                "give the settings it was started with, or another name= to start anew"
            )
    elif resume:
        log.warning(
            "resume=true: %s holds no checkpoints, so there is nothing to go on from, and training starts at its beginning; "
            "give the name= or hydra.run.dir= of the run that was broken off",
            path.parent.parent,
        )
    write_json(path, dict(now))


def start_anew(folder: Path) -> None:
    """Remove what an earlier run in this folder left: its checkpoints, which a later resume would take for this run's, and its
    scores."""
    checkpoints = folder / "checkpoints"
    if any(checkpoints.glob("*/*.ckpt")) and not read_metrics(folder)["train"]:
        log.warning(
            "%s holds the checkpoints of a run that was broken off: they are removed, and training starts at its beginning "
            "(resume=true would have gone on from them)",
            folder,
        )
    shutil.rmtree(checkpoints, ignore_errors=True)
    for name in ("metrics.json", "significance.json", "baselines.json"):
        (folder / name).unlink(missing_ok=True)


def _short(value: str) -> str:
    return value[:8] if len(value) == HASH else value
