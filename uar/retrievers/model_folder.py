"""A model by reference, as the kind of retriever that its files say it is."""

import logging
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from uar.errors import UserError
from uar.machine.model_files import locate
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.kinds import kind_that_reads, kinds
from uar.retrievers.trainable import Trainable
from uar.retrievers.transformer.published_files import reader

log = logging.getLogger(__name__)


def open_model(model: str, revision: str | None = None, **options: Any) -> Trainable:
    """Of the kind whose `reads` is true of its files, else a bi-encoder; where they resemble those of another kind, the log
    tells so. `options`: of the kind's class, None for what the files say; UserError for one that it has not got."""
    path = locate(model)
    found = kind_that_reads(path, revision)
    kind: type[Trainable] = found[1] if found else BiEncoder
    given = {name: value for name, value in {"revision": revision, **options}.items() if value is not None}
    takes = signature(kind).parameters
    any_name = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in takes.values())
    wrong = None if any_name else next((name for name in given if name not in takes), None)
    if wrong:
        raise UserError(f"{wrong}={given[wrong]}: {model} is a {kind.kind.name}, which has no {wrong}; leave it null")
    if not found:
        _check_guess(model, path, revision)
    return kind(model, **given)


def _check_guess(model: str, path: str, revision: str | None) -> None:
    """Tell where a model that says no kind may be none of a bi-encoder; UserError where it is none of any."""
    read = reader(path, revision)
    if Path(path).is_dir() and not read("config.json") and not read("modules.json"):
        raise UserError(
            f"model {model}: its files say no kind of retriever; give a model of sentence-transformers, or, of a kind of your "
            "own, --config-dir= with the folder of its config too"
        )
    for name, other in kinds().items():
        if other.resembles(path, revision):
            line = "%s: its files say no kind of retriever, and it is taken for a bi-encoder; a %s is opened by "
            log.warning(line + "retriever=%s retriever.model=%s", model, other.kind.name, name, model)
