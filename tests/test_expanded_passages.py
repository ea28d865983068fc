"""Passages that are searched with what an LLM writes for them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_jsonl
from hydra.utils import instantiate
from scripted_writer import ASKED, LLM, WRITES, forget, with_writer

from uar.collections import Collection, open_collection
from uar.collections.documents import Corpus
from uar.collections.reference import MINI
from uar.errors import UserError
from uar.evaluate import evaluate
from uar.evaluation.measures import per_query
from uar.evaluation.retrieving import Retrieving
from uar.expansion import ExpandedPassages
from uar.expansion.passage_texts import Passages, PassageWriter, expanded_corpus
from uar.launch.entry import composed
from uar.llm.record import Outcome, Reply
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.ranker import Ranker
from uar.retrievers.run_file import RunFile
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.storage.runs import write_run


@pytest.fixture(autouse=True)
def written() -> Iterator[None]:
    yield
    forget()


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def with_llm(store: Path, ranker: Ranker, documents: str, *options: str) -> Ranker:
    cfg = composed("evaluate", f"expand.documents={documents}", f"store={store}", *options)
    return with_writer(ranker, cfg)


def by_hand(collection: Collection, folder: Path, texts: dict[str, str]) -> Collection:
    """The collection with passages that somebody wrote into its corpus.jsonl."""
    rows = [{"_id": d, "title": title, "text": texts.get(d, text)} for d, title, text in collection.corpus.passages()]
    write_jsonl(folder / "corpus.jsonl", rows)
    return open_collection(f"local:{folder}:test")


def test_an_expanded_corpus_scores_as_one_that_was_written_by_hand(tmp_path: Path) -> None:
    mini = open_collection("mini:test")
    ids = list(mini.queries)
    asked_of = {d: q for q in ids for d in mini.positives(q)}
    lines = {d: f"It is asked:\n{mini.queries[q].text}" for d, q in asked_of.items()}
    texts = dict(zip(mini.corpus.ids(), mini.corpus.texts(), strict=True))
    WRITES.update({texts[d]: line for d, line in lines.items()} | {"": "nothing of note"})
    place = tmp_path / "hand"
    (place / "qrels").mkdir(parents=True)
    write_jsonl(place / "queries.jsonl", [{"_id": q.id, "text": q.text} for q in mini.queries.values()])
    (place / "collection.json").write_bytes((MINI / "collection.json").read_bytes())
    pairs = "".join(f"{q}\t{d}\t{g}\n" for q, given in mini.qrels.items() for d, g in given.items())
    (place / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{pairs}")
    rows = {d: f"{text} {' '.join(lines.get(d, 'nothing of note').split())}" for d, _, text in mini.corpus.passages()}
    hand = by_hand(mini, place, rows)
    found = with_llm(tmp_path / "store", BM25Ranker(), "questions").rank(mini, ids, 20)
    assert found == BM25Ranker().rank(hand, ids, 20)
    plain, better, right = (
        np.mean([value for *_, value in per_query(of, run, ["nDCG@10"], ids)])
        for of, run in ((mini, BM25Ranker().rank(mini, ids, 20)), (mini, found), (hand, BM25Ranker().rank(hand, ids, 20)))
    )
    assert plain < 0.7 and better == right > 0.95
    assert len(ASKED) == len(set(texts.values()))


def test_a_corpus_has_its_own_hash_and_the_same_ids(toy: Collection) -> None:
    corpus = toy.corpus.in_language("de")
    more = expanded_corpus(corpus, {"d2": "hive"}, before=False)
    assert list(more.ids()) == list(corpus.ids()) and more.language == "de"
    assert more.text(1) == "Bees make honey from the nectar of flowers. hive" and more.text(0) == corpus.text(0)
    before = expanded_corpus(corpus, {"d2": "hive"}, before=True)
    assert before.text(1) == "hive Bees make honey from the nectar of flowers."
    others = [expanded_corpus(corpus, {"d2": "hives"}, before=False), expanded_corpus(corpus, {"d3": "hive"}, before=False)]
    assert len({corpus.hash, more.hash, before.hash, *(other.hash for other in others)}) == 5
    again: Corpus = expanded_corpus(corpus, {"d2": "hive"}, before=False)
    assert (again.folder, again.hash) == (more.folder, more.hash)
    assert expanded_corpus(corpus, {}, before=False) is corpus


def test_passages_travel_to_other_processes(toy: Collection) -> None:
    every = Passages(toy.slug, toy.reference, toy.corpus)
    opened = every.opener()()
    assert list(opened(list(every.items()))) == list(every)
    assert [q.passages for q in opened([{"doc_id": "d5"}])] == [{"d5": "A violin has four strings."}]


def test_a_failed_passage_stays_as_it_is_and_is_asked_again(
    toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    WRITES.update(
        {"Danube": Reply("the server is down", Outcome.ERROR), "Bees": Reply("hive, wax and", Outcome.TRUNCATED), "": "x y"}
    )
    (tmp_path / "run").mkdir()
    keys = []
    how = Retrieving(None, 6)
    for calls, kept, failed in ((6, 0, 1), (1, 5, 0)):
        ranker = with_llm(tmp_path / "store", BM25Ranker(), "keywords", "expand.max_failure_rate=0.5")
        assert how.key(toy, ranker) is None  # nobody would close the model
        with Session(ExactSearch, folder=tmp_path / "run") as session:
            opened = ranker.opened(session)
            keys.append(how.key(toy, ranker))
            hits = opened.rank(toy, list(toy.queries), 6)
            wanted = (
                {"d2": "hive, wax and"} | dict.fromkeys(("d1", "d4", "d5", "d6"), "x y") | ({} if failed else {"d3": "delta"})
            )
            texts = replace(toy, corpus=expanded_corpus(toy.corpus, wanted, before=False))
            assert hits == BM25Ranker().rank(texts, list(toy.queries), 6)
            assert opened.score(toy, {"q1": ["d2", "d1"]}) == BM25Ranker().score(texts, {"q1": ["d2", "d1"]})
        ledger = json.loads((tmp_path / "run" / "expand_ledger.json").read_text())
        assert (ledger["calls"], ledger["calls_answered_by_store"], ledger["failed_calls"]) == (calls, kept, failed)
        WRITES["Danube"] = "delta"
    assert None not in keys and keys[0] != keys[1]
    assert "calls failed: 1 of 6 passages are searched as they are" in caplog.text


def test_vectors_are_those_of_the_expanded_passages_and_go_with_the_corpus(
    toy: Collection, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BiEncoder(tiny[0].partition("=")[2], query_length=32, passage_length=32, normalize=True)
    WRITES[""] = "a short abstract"
    ids = list(toy.queries)
    texts = {d: "a short abstract" for d in toy.corpus.ids()}
    right = model.rank(replace(toy, corpus=expanded_corpus(toy.corpus, texts, before=True)), ids, 6)
    forgotten = []
    with Session(ExactSearch, moves=False) as session:
        assert with_llm(tmp_path, model, "abstract").opened(session).rank(toy, ids, 6) == right != model.rank(toy, ids, 6)
        monkeypatch.setattr(ExactSearch, "forget", lambda search, corpus: forgotten.append(corpus.hash))
        session.release(toy.corpus)
    assert forgotten == [toy.corpus.hash, expanded_corpus(toy.corpus, texts, before=True).hash]


def test_both_sides_are_expanded(toy: Collection, tmp_path: Path) -> None:
    WRITES.update({"Question: what pumps": "xylophone", "Passage: A violin": "xylophone", "": "zebra"})
    found = with_llm(tmp_path, BM25Ranker(), "keywords", "expand=pseudo_document", "expand.join=replace").rank(toy, ["q1"], 6)
    assert found["q1"][0][0] == "d5"


def test_pools_come_from_what_the_expanded_passages_find(toy: Collection, tmp_path: Path) -> None:
    WRITES.update({"A violin": "what pumps blood blood blood pumps", "": "zebra"})
    more = ["candidates=expanded", f"store={tmp_path}", "candidates.depth=1", "candidates.include_positive=false"]
    cfg = composed("annotate", "dataset=local", f"dataset.path={tmp_path}", *more)
    cfg.candidates.expand.llm = LLM
    source = instantiate(cfg.candidates)
    assert source.pools(toy, ["q1", "q2"]) == {"q1": ["d5"], "q2": ["d2"]}
    assert source.ranked_by(BM25Ranker()).pools(toy, ["q1"]) == {"q1": ["d5"]}


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply("bees, honey"), Outcome.OK),
        (Reply("bees, hon", Outcome.TRUNCATED), Outcome.OK),
        (Reply(' "\n" '), Outcome.EMPTY),
        (Reply("", Outcome.REFUSED), Outcome.REFUSED),
    ],
)
def test_a_reply_without_a_text_fails(reply: Reply, outcome: Outcome) -> None:
    assert PassageWriter(template="passage_keywords").check(reply) == outcome


def test_an_evaluation_with_expanded_passages_keeps_its_run(folder: Path, tmp_path: Path, server: Any) -> None:
    server.answer = lambda messages: "what pumps" if "violin" in messages[-1]["content"] else "bees"
    given = ["retriever=bm25", f"collections=[local:{folder}:test]", "logger=none", f"store={tmp_path / 'store'}"]
    served = [
        "llm@expand.llm=openai",
        f"expand.llm.base_urls=[{server.url}]",
        "expand.llm.model=x",
        "expand.documents=questions",
    ]
    more = ["measures=[RR@10]", "retrieval_depth=6", "rerank=bm25", "rerank.depth=6"]
    assert (
        evaluate(composed("evaluate", *given, *served, *more), tmp_path / "run") == 1
    )  # re-ranked by the passages themselves
    hits = [line.split() for line in (tmp_path / "run" / "runs" / "toy.test.trec").read_text().splitlines()]
    assert {(q, d) for q, _, d, *_ in hits} >= {("q1", "d1"), ("q1", "d5")}
    asked = len(server.seen)
    assert evaluate(composed("evaluate", *given, *served, *more), tmp_path / "run") == 1
    assert asked == len(server.seen) == 6
    made = json.loads((tmp_path / "run" / "runs" / "made_by.json").read_text())
    assert made["toy.test"]["key"]


def test_what_does_not_go_together_is_refused(toy: Collection, tmp_path: Path) -> None:
    write_run(tmp_path / "a.trec", {"q1": [("d1", 1.0)]}, "a")
    with pytest.raises(UserError, match="expand.documents='keyword'; allowed: keywords, abstract, questions, a YAML file"):
        with_llm(tmp_path, BM25Ranker(), "keyword")
    with pytest.raises(UserError, match=r"a\.trec is there already, and searches nothing"):
        with_llm(tmp_path, RunFile(tmp_path / "a.trec"), "keywords")
    both = with_llm(tmp_path, BM25Ranker(), "keywords")
    assert isinstance(both, ExpandedPassages) and "passage_keywords of writer" in both.name
