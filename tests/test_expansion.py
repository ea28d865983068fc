"""Queries that are searched with what an LLM writes for them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_writer import WRITES, forget, with_writer

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluate import evaluate
from uar.evaluation.measures import per_query
from uar.expansion import Expanded
from uar.expansion.query_texts import QueryWriter, with_texts
from uar.launch.entry import composed
from uar.llm.record import Outcome, Reply
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.fusion.methods import fuse
from uar.retrievers.ranker import Ranker
from uar.retrievers.run_file import RunFile
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.storage.runs import write_run

QUERIES = ["q1", "q2", "q3"]


@pytest.fixture(autouse=True)
def written() -> Iterator[None]:
    yield
    forget()


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def with_llm(store: Path, ranker: Ranker, name: str, *options: str) -> Expanded:
    cfg = composed("evaluate", f"expand={name}", f"store={store}", *options)
    both = with_writer(ranker, cfg)
    assert isinstance(both, Expanded)
    return both


def write_gold(collection: Collection) -> None:
    for query_id, query in collection.queries.items():
        (row,) = (collection.corpus.row(d) for d in collection.positives(query_id))
        WRITES[query.text] = collection.corpus.text(row).removesuffix(".")


def vague(collection: Collection) -> Collection:
    """The collection with questions that share no word with its passages."""
    return with_texts(collection, {q: f"xylophone {q}" for q in collection.queries})


def test_pseudo_documents_raise_the_scores_of_bm25_to_those_of_a_run_made_by_hand(tmp_path: Path):
    mini = open_collection("mini:test")
    write_gold(mini)
    ids = list(mini.queries)
    found = with_llm(tmp_path, BM25Ranker(), "pseudo_document", "expand.max_failure_rate=1").rank(mini, ids, 20)
    by_hand = with_texts(mini, {q: " ".join([query.text] * 5 + [WRITES[query.text]]) for q, query in mini.queries.items()})
    assert found == BM25Ranker().rank(by_hand, ids, 20)
    plain, better = (
        np.mean([value for *_, value in per_query(mini, run, ["nDCG@10"], ids)])
        for run in (BM25Ranker().rank(mini, ids, 20), found)
    )
    assert plain < 0.7 and better > 0.95


def test_what_was_written_is_searched_alone_beside_or_by_ranks(toy: Collection, tmp_path: Path):
    asked = vague(toy)
    WRITES.update({f"xylophone {q}": text for q, text in {"q1": "violin", "q2": "bees and snow", "q3": "the Danube"}.items()})
    own, other = BM25Ranker(), with_texts(toy, {q: str(WRITES[f"xylophone {q}"]) for q in QUERIES})
    right = own.rank(other, QUERIES, 3)
    assert with_llm(tmp_path, own, "pseudo_document", "expand.join=replace").rank(asked, QUERIES, 3) == right
    assert with_llm(tmp_path, own, "rewrite").rank(asked, QUERIES, 3) == right
    fused = with_llm(tmp_path, own, "pseudo_document", "expand.join=fuse").rank(asked, QUERIES, 3)
    assert fused == fuse([own.rank(asked, QUERIES, 3), right], depth=3)
    once = with_llm(tmp_path, own, "pseudo_document", "expand.repeat=1")
    pools = {"q2": ["d6", "d2", "d3"]}
    joined = with_texts(toy, {"q2": "xylophone q2 bees and snow"})
    assert once.score(asked, pools) == own.score(joined, pools)
    assert once.key(toy) is None  # so that no run is kept in which a call failed


def test_the_mean_of_vectors_is_searched(toy: Collection, tmp_path: Path, tiny: list[str]):
    model = BiEncoder(tiny[0].partition("=")[2], query_length=32, passage_length=32, normalize=True)
    asked = vague(toy)
    WRITES.update({f"xylophone {q}": "the Danube flows into the sea" for q in QUERIES})
    both = with_llm(tmp_path, model, "pseudo_document", "expand.join=mean")
    with Session(ExactSearch, moves=False) as session:
        session.search.__dict__["precision"] = "fp32"
        opened = both.opened(session)
        found, scored = opened.rank(asked, QUERIES, 6), opened.score(asked, {"q1": ["d3", "d5"]})

    def vectors(texts: list[str], role: str) -> np.ndarray:
        made = with_texts(toy, {f"q{n}": text for n, text in enumerate(texts, start=1)}) if role == "query" else toy
        tokens = model.query_tokens(made) if role == "query" else model.passage_tokens(made)
        return model([tokens[row] for row in range(len(texts))], role=role).detach().numpy()

    words = vectors(["xylophone q1", "xylophone q2", "xylophone q3"], "query")
    mean = words + vectors(["the Danube flows into the sea"] * 3, "query")
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    scores = mean @ vectors(["", "", "", "", "", ""], "passage").T
    right = {q: {f"d{n + 1}": own[n] for n in range(6)} for q, own in zip(QUERIES, scores, strict=True)}
    for query_id, hits in {**found, "q1": scored["q1"]}.items():
        assert [s for _, s in hits] == pytest.approx([right[query_id][d] for d, _ in hits], abs=2e-3)
    assert [d for d, _ in found["q1"]] == sorted(right["q1"], key=lambda d: -right["q1"][d])


def test_replies_are_kept_and_failures_counted(toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_gold(toy)
    WRITES[toy.queries["q2"].text] = Reply("the server is down", Outcome.ERROR)
    (tmp_path / "run").mkdir()
    for calls, kept in ((3, 0), (1, 2)):  # an error is asked again
        model = with_llm(tmp_path / "store", BM25Ranker(), "pseudo_document", "expand.max_failure_rate=0.5")
        with Session(ExactSearch, folder=tmp_path / "run") as session:
            found = model.opened(session).rank(toy, QUERIES, 6)
        ledger = json.loads((tmp_path / "run" / "expand_ledger.json").read_text())
        assert (ledger["calls"], ledger["calls_answered_by_store"]) == (calls, kept)
    assert found["q2"] == BM25Ranker().rank(toy, ["q2"], 6)["q2"]
    assert "calls failed: 1 of 3 questions are searched as they are" in caplog.text
    (failure,) = [json.loads(line) for line in (tmp_path / "run" / "expand_failures.jsonl").read_text().splitlines()]
    assert failure["query_id"] == "q2"


@pytest.mark.parametrize(
    ("text", "first_line", "read"),
    [
        ("A passage.\nIt goes\ton.", False, "A passage. It goes on."),
        ('Query: "heart pump"\nBecause it is', True, "heart pump"),
        ("blood, veins,\nvalves", False, "blood, veins, valves"),
        ("  \n", False, ""),
    ],
)
def test_replies_are_read_as_one_line(text: str, first_line: bool, read: str):
    writer = QueryWriter(template="pseudo_document", first_line=first_line)
    assert writer.read(text) == read
    assert writer.check(Reply(text)) == (Outcome.OK if read else Outcome.EMPTY)
    assert writer.check(Reply(text, Outcome.TRUNCATED)) == (
        Outcome.EMPTY if not read else Outcome.TRUNCATED if first_line else Outcome.OK
    )


def test_what_does_not_go_together_is_refused(toy: Collection, tmp_path: Path):
    write_run(tmp_path / "a.trec", {"q1": [("d1", 1.0)]}, "a")
    for ranker, options, told in (
        (BM25Ranker(), ["expand.join=mean"], "expand.join=mean: bm25.* has no vector a query; allowed: append, replace, fuse"),
        (BM25Ranker(), ["expand.join=or"], "expand.join='or'; allowed: append, replace, fuse, mean"),
        (BM25Ranker(), ["expand.repeat=2", "expand.join=fuse"], "expand.repeat=2: at least 1 is needed"),
        (RunFile(tmp_path / "a.trec"), [], "a.trec is there already, and searches nothing"),
    ):
        with pytest.raises(UserError, match=told):
            with_llm(tmp_path, ranker, "pseudo_document", *options)


@pytest.mark.parametrize("written", ["off", "passages"])
@pytest.mark.parametrize("option", ["join=fuse", "repeat=3", "query_length=80"])
def test_options_of_texts_of_queries_are_refused_where_none_is_written(tmp_path: Path, written: str, option: str):
    with pytest.raises(UserError, match=f"expand.{option}: nothing is written for queries; leave it (null|append), or give"):
        with_llm(tmp_path, BM25Ranker(), written, f"expand.{option}")


def test_an_evaluation_expands_before_it_re_ranks(folder: Path, tmp_path: Path, server: Any):
    def write(messages: Any) -> str:
        question = re.search(r"Question: (.*)", messages[-1]["content"])
        return "violin strings" if question and "blood" in question[1] else "ice crystals"

    server.reply = write
    given = [
        "retriever=bm25",
        f"collections=[local:{folder}:test]",
        "logger=none",
        f"store={tmp_path / 'store'}",
        "measures=[RR@10]",
    ]
    served = ["expand=keywords", "llm@expand.llm=openai", f"expand.llm.base_urls=[{server.url}]", "expand.llm.model=x"]
    alone = evaluate(composed("evaluate", *given, *served, "expand.join=replace", "retrieval_depth=6"), tmp_path / "alone")
    assert alone == 0  # what was written has nothing to do with the answers
    both = [*served, "rerank=bm25", "rerank.depth=6", "retrieval_depth=6"]
    assert evaluate(composed("evaluate", *given, *both), tmp_path / "both") == 1  # by the question, among what was found
    assert json.loads((tmp_path / "both" / "expand_ledger.json").read_text())["calls_answered_by_store"] == 3
