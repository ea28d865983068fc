"""A model by reference, as the kind of retriever that its files say it is."""

from typing import Any

from uar.errors import UserError
from uar.machine.model_files import locate
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.colbert.colbert_encoder import ColBERT
from uar.retrievers.colbert.multi_vector_files import read_multi_vector
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.retrievers.cross_encoder.scorer_files import is_cross_encoder
from uar.retrievers.trainable import Trainable


def open_model(model: str, revision: str | None = None, token_budget: int | None = None, **of_encoders: Any) -> Trainable:
    """A cross-encoder where the model has a scoring head, ColBERT where its files are those of a vector a token, else a
    bi-encoder. `of_encoders`: options of a bi-encoder; UserError for one that is given of another kind."""
    options: dict[str, Any] = {} if token_budget is None else {"token_budget": token_budget}
    pairs = is_cross_encoder(model, revision)
    if not pairs and not read_multi_vector(model, locate(model), revision):
        return BiEncoder(model, revision, **of_encoders, **options)
    wrong = next((name for name, value in of_encoders.items() if value is not None), None)
    if wrong:
        kind = "cross-encoder" if pairs else "ColBERT"
        raise UserError(f"{wrong}={of_encoders[wrong]}: {model} is a {kind}, which has no {wrong}; leave it null")
    return (CrossEncoder if pairs else ColBERT)(model, revision=revision, **options)
