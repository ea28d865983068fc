"""A model by reference, as the kind of retriever that its files say it is."""

import logging
from inspect import signature
from typing import Any

from uar.errors import UserError
from uar.machine.model_files import locate
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.kinds import kind_that_reads, kinds
from uar.retrievers.trainable import Trainable

log = logging.getLogger(__name__)


def open_model(model: str, revision: str | None = None, **options: Any) -> Trainable:
    """Of the kind whose `reads` is true of its files, else a bi-encoder; where they resemble those of another kind, the log
    tells so. `options`: of the kind's class, None for what the files say; UserError for one that it has not got."""
    path = locate(model)
    found = kind_that_reads(path, revision)
    kind: type[Trainable] = found[1] if found else BiEncoder
    given = {name: value for name, value in {"revision": revision, **options}.items() if value is not None}
    wrong = next((name for name in given if name not in signature(kind).parameters), None)
    if wrong:
        raise UserError(f"{wrong}={given[wrong]}: {model} is a {kind.kind.name}, which has no {wrong}; leave it null")
    for name, other in () if found else kinds().items():
        if other.resembles(path, revision):
            line = "%s: its files say no kind of retriever, and it is taken for a bi-encoder; a %s is opened by "
            log.warning(line + "retriever=%s retriever.model=%s", model, other.kind.name, name, model)
    return kind(model, **given)
