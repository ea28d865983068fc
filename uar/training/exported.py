"""A run that is done keeps its weights once, in the model that it exported. Its checkpoints go, and where it is resumed it
loads the weights from there."""

from functools import partial
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig

from uar.collections import Collection
from uar.errors import UserError
from uar.retrievers.encode import encode_rows
from uar.retrievers.session import Session
from uar.retrievers.trainable import Encoder, Trainable
from uar.retrievers.vector_index import ExactSearch
from uar.storage.files import write_array

VECTORS = "vectors.npy"  # of a few texts, as the trained model gives them
FEW = 8  # texts
ALIKE = 0.999  # cosine: two precisions differ less, two models more


def of_a_few(retriever: Trainable, collection: Collection, precision: str) -> np.ndarray:
    """What the model makes of a few texts: vectors of passages, or for each of some queries the scores of some passages.
    UserError where the last steps broke the model, so that it is not exported."""
    if isinstance(retriever, Encoder):
        for role, tokens in (("query", retriever.query_tokens(collection)), ("passage", retriever.passage_tokens(collection))):
            found = encode_rows(retriever, tokens, list(range(min(FEW, len(tokens)))), precision, role)
        return found
    passages = [collection.corpus.id(row) for row in range(min(FEW, len(collection.corpus)))]
    with Session(lambda: ExactSearch(precision=precision), moves=False) as session:
        run = retriever.opened(session).score(collection, dict.fromkeys(list(collection.queries)[:FEW], passages))
    return np.array([[dict(hits)[d] for d in passages] for hits in run.values()])


def is_done(checkpoints: Path) -> bool:
    """Whether the run has come to its end: the weights lie in the exported model, of the checkpoints some may be gone."""
    return (checkpoints / VECTORS).is_file()


def drop_checkpoints(checkpoints: Path, vectors: np.ndarray) -> None:
    """And what a kill left of one that was being written. `vectors`: of a few texts, (texts, …), to know the model again."""
    write_array(checkpoints / VECTORS, vectors)
    for path in (*checkpoints.glob("*/*.ckpt"), *checkpoints.glob("*/.*.ckpt.*")):
        path.unlink()


def restore(cfg: DictConfig, model: Path, retriever: Trainable) -> None:
    """Load the weights of the exported model. UserError where it is not there."""
    if not model.is_dir():
        raise UserError(
            f"resume=true: the training in {model.parent} is done, and its model/ is gone; give the same command without "
            "resume=true to train anew"
        )
    retriever.restore(partial(hydra.utils.instantiate, cfg.retriever, model=str(model), _convert_="all"))


def check_restored(checkpoints: Path, vectors: np.ndarray) -> None:
    """UserError where a model folder gave back other weights than were trained: an encoder's `save` writes what its `model=`
    does not read, or somebody changed the folder."""
    then, now = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (np.load(checkpoints / VECTORS), vectors))
    lengths = np.linalg.norm(then, axis=1) * np.linalg.norm(now, axis=1) if then.shape == now.shape else np.zeros(1)
    if then.shape != now.shape or ((then * now).sum(axis=1) < ALIKE * lengths).any():
        raise UserError(
            f"resume=true: {checkpoints.parent / 'model'} is not the model that was trained there, whose vectors "
            f"{checkpoints / VECTORS} holds; give the same command without resume=true to train anew"
        )
