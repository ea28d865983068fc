"""A trained model and BM25 as one ranker."""

from collections.abc import Mapping, Sequence

from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.fusion.methods import K
from uar.retrievers.model_folder import open_model


def hybrid(
    model: str,
    revision: str | None = None,
    method: str = "weighted",
    weights: Mapping[str, float] | Sequence[float] | None = None,
    k: int = K,
    learn_on: str | None = None,
) -> Fusion:
    """What `retriever=hybrid` instantiates: a `Fusion` of `model`, of whatever kind it is, and of `bm25`."""
    return Fusion(None, {"model": open_model(model, revision), "bm25": BM25Ranker()}, method, weights, k, learn_on)
