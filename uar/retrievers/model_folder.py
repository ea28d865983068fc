"""A model by reference, as the kind of retriever that its files say it is."""

import logging
from collections.abc import Callable
from typing import Any

from hydra.utils import get_object
from omegaconf import OmegaConf

from uar.errors import UserError
from uar.launch.resolvers import CONF
from uar.machine.model_files import locate
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.trainable import Trainable
from uar.retrievers.transformer.published_files import reader

log = logging.getLogger(__name__)
MASKED_LM = "ForMaskedLM"  # ends the names of such architectures


def open_model(model: str, revision: str | None = None, token_budget: int | None = None, **of_encoders: Any) -> Trainable:
    """Of the kind whose `reads` is true of its files, else a bi-encoder; of a masked language model that says of none, the log
    tells so. `of_encoders`: options of a bi-encoder; UserError for one that is given of another kind."""
    options: dict[str, Any] = {} if token_budget is None else {"token_budget": token_budget}
    path = locate(model)
    kind = next((kind for kind in _kinds() if kind.reads(path, revision)), BiEncoder)
    if kind is BiEncoder:
        _tell_guess(model, reader(path, revision))
        return BiEncoder(model, revision, **of_encoders, **options)
    wrong = next((name for name, value in of_encoders.items() if value is not None), None)
    if wrong:
        raise UserError(f"{wrong}={of_encoders[wrong]}: {model} is a {kind.kind.name}, which has no {wrong}; leave it null")
    return kind(model, revision=revision, **options)


def _tell_guess(model: str, read: Callable[[str], Any]) -> None:
    """Learned sparse models that are published without files of sentence-transformers look like any masked language model."""
    architectures = (read("config.json") or {}).get("architectures") or []
    if not read("modules.json") and any(name.endswith(MASKED_LM) for name in architectures):
        line = "%s: its files say no kind of retriever, and it is taken for a bi-encoder; a learned sparse model "
        log.warning(line + "(SPLADE) is opened by retriever=splade retriever.model=%s", model, model)


def _kinds() -> list[type[Trainable]]:
    """Of the retrievers that configs name, those that are trained."""
    targets = {OmegaConf.select(OmegaConf.load(path), "_target_") for path in (CONF / "retriever").glob("*.yaml")}
    made = [get_object(target) for target in sorted(target for target in targets if target)]
    return [kind for kind in made if isinstance(kind, type) and issubclass(kind, Trainable)]
