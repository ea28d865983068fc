"""Options of `search` that a ranker does not read are refused, whatever the ranker is made of."""

from collections.abc import Callable
from dataclasses import fields

import pytest
from conftest import SMALL
from hydra.utils import instantiate
from tiny_models import tiny_bert, tiny_mlm

from uar.errors import UserError
from uar.evaluation.retrieving import Retrieving, as_configured
from uar.launch.entry import composed
from uar.retrievers.search_options import EXACT, VECTORS
from uar.retrievers.vector_index import ExactSearch, FaissSearch

SOME = ["search.quantize=int8", "search=hnsw", "search.dimensions=8", "search.processes=2", "search.precision=fp32"]
READ = {  # how many of them, from the last one on
    "bm25": 0,
    "bm25 rerank=bi_encoder rerank.depth=5 rerank.retriever.model={bert}": 1,
    "cross_encoder retriever.model={bert}": 1,
    "cross_encoder retriever.model={bert} retriever@retriever.first=minilm retriever.first.model={bert}": 5,
    "colbert retriever.model={bert}": 1,
    "splade retriever.model={mlm}": 1,
    "minilm retriever.model={bert}": 5,
    "hybrid retriever.model={bert}": 5,
}


def test_what_is_meant_by_as_it_is():
    own = {field.name: field.default for field in fields(ExactSearch) if field.init}
    assert dict(EXACT) == own and {field.name for field in fields(FaissSearch)} >= VECTORS


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")
    return {"bert": tiny_bert(place / "bert"), "mlm": tiny_mlm(place / "mlm")}


@pytest.mark.parametrize("words", READ)
def test_what_a_ranker_does_not_read_is_refused(words: str, models: dict[str, str]):
    cfg = composed("evaluate", *f"retriever={words.format(**models)}".split())
    ranker = as_configured(instantiate(cfg.retriever, _convert_="all"), cfg)
    read = SOME[len(SOME) - READ[words] :]
    for option in SOME:
        retrieving = Retrieving(composed("evaluate", option).search, 10)
        if option in read:
            retrieving.refuse_unread(ranker)
            continue
        with pytest.raises(UserError) as error:
            retrieving.refuse_unread(ranker)
        given = "search.factory=HNSW32" if option == "search=hnsw" else option
        assert str(error.value).startswith(f"{given}: {ranker.name} does not read this (of search: ")


def test_a_training_refuses_it_before_it_begins(fails: Callable[..., str], models: dict[str, str]):
    options = [f"retriever.model={models['bert']}", "retriever.layers=null", *SMALL, "logger=none", "rag=off"]
    error = fails("train", "retriever=colbert", "search.quantize=int8", *options)
    assert error.startswith("error: search.quantize=int8: colbert bert@") and "(of search: embeddings, precision)" in error
