"""What a run trains on and how, as hashes: a run is only resumed as what it was."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from uar.errors import UserError
from uar.files import digest, read_json, write_json
from uar.labels import Stage
from uar.losses import Loss, name_of


def label_hash(stages: Sequence[Stage]) -> str:
    """Of every pair that is trained on, its label and its utility."""
    return digest([(s.name, e.query_id, list(e.pairs()), e.ignored) for s in stages for e in s.examples])


def loss_hash(stages: Sequence[Stage], loss: Loss) -> str:
    """Of the losses of all stages and their settings."""
    chosen = [stage.loss or loss for stage in stages]
    return digest([(name_of(x), getattr(x, "keywords", {})) for x in chosen])


def schedule_hash(stages: Sequence[Stage], *settings: object) -> str:
    """Of how long, how fast and in what batches is trained."""
    own = [(s.name, s.epochs, s.positives, s.learning_rate, s.warmup, s.batch_size, s.passages_per_query) for s in stages]
    return digest(own, [repr(s.candidates) for s in stages if s.candidates], *settings)


def keep_identity(path: Path, now: Mapping[str, str], resume: bool) -> None:
    """Write the hashes; with `resume` compare them with those written before, UserError naming what differs."""
    if resume and path.is_file():
        then = read_json(path)
        changed = [
            f"{name} ({then.get(name, 'unknown')[:8]} then, {now[name][:8]} now)"
            for name in now
            if then.get(name) != now[name]
        ]
        if changed:
            raise UserError(
                f"resume=true: the run in {path.parent.parent} was started with another {', another '.join(changed)}; "
                "give the settings it was started with, or another name= to start anew"
            )
    write_json(path, dict(now))
