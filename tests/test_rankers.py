"""What retrievers and re-rankers promise, and that a new kind of either is a class and a YAML alone."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics, ok, write_jsonl
from tiny_models import tiny_bert
from torch import nn
from transformers import AutoTokenizer

from uar.collections import Collection, open_collection
from uar.collections.token_ids import Tokens, corpus_tokens, query_tokens
from uar.errors import UnknownPassage, UnknownQueries, UserError
from uar.evaluate import evaluate
from uar.evaluation.evaluator import Evaluator
from uar.launch.entry import composed
from uar.pools import DensePool
from uar.reranking import ByRanker, Reranked, reranked
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.dense import DenseRanker
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.run_file import RunFile
from uar.retrievers.session import Session
from uar.retrievers.trainable import Encoder
from uar.retrievers.vector_index import ExactSearch
from uar.storage.ordering import best_first
from uar.storage.runs import Run, read_run, write_run


class Shortest(Ranker):
    """A kind of retriever that the package does not know: the shorter a passage, the better."""

    name = "shortest"

    def __init__(self, sign: float = -1.0) -> None:
        self._sign = sign
        self.sessions: list[tuple[Session, str]] = []

    def opened(self, session: Session, part: str = "") -> "Shortest":
        self.sessions.append((session, part))
        return self

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        every = list(collection.corpus.ids())
        return {q: hits[:depth] for q, hits in self.score(collection, {q: every for q in query_ids}).items()}

    def score(self, collection: Collection, pools: Pools) -> Run:
        def length(doc_id: str) -> float:
            return self._sign * len(collection.corpus.text(collection.corpus.rows([doc_id])[0]))

        return {q: best_first((d, length(d)) for d in pool) for q, pool in pools.items()}


class Bag(Encoder):
    """An encoder that the package does not know: the mean of its words' vectors."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.name, self.scale_ = "bag", 5.0
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.words = nn.EmbeddingBag(len(self.tokenizer), 48)

    def forward(self, texts: Sequence[np.ndarray], role: str = "passage", cached: bool = False) -> torch.Tensor:
        starts = torch.tensor([0, *map(len, texts[:-1])]).cumsum(0)
        vectors = self.words(torch.from_numpy(np.concatenate(texts)).to(self.device), starts.to(self.device))
        return nn.functional.normalize(vectors, dim=-1)

    def similarity(self, queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        return queries @ passages.T

    @property
    def scale(self) -> float:
        return self.scale_

    @property
    def dim(self) -> int:
        return 48

    @property
    def vector_settings(self) -> tuple[object, ...]:
        return ()

    def passage_tokens(self, collection: Collection) -> Tokens:
        return corpus_tokens(collection, self.tokenizer, 64)

    def query_tokens(self, collection: Collection) -> Tokens:
        return query_tokens(collection, self.tokenizer, 64)

    def opened(self, session: Session, part: str = "") -> Ranker:
        return DenseRanker(self, session, part)

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        torch.save(self.state_dict(), folder / "words.pt")


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def ids(run: Run, query_id: str = "q1") -> list[str]:
    return [d for d, _ in run[query_id]]


EVERY = ["d1", "d2", "d3", "d4", "d5", "d6"]
BY_LENGTH = ["d5", "d6", "d3", "d1", "d4", "d2"]  # shortest first; d1 and d4 are as long
LONGEST = ["d2", "d1", "d4", "d3", "d6", "d5"]


def test_bm25_scores_given_passages_as_it_ranks_them(toy: Collection):
    bm25 = BM25Ranker()
    for query_id, hits in bm25.rank(toy, list(toy.queries), 6).items():
        scored = bm25.score(toy, {query_id: EVERY})[query_id]
        assert scored[: len(hits)] == hits and hits
        assert scored[len(hits) :] == [(d, 0.0) for d in EVERY if d not in dict(hits)]
    with pytest.raises(UnknownPassage, match=r"local:.*: passage 'nope' of query 'q1' is not in the corpus; remove it"):
        bm25.score(toy, {"q1": ["d1", "nope"]})


def test_a_query_without_a_known_word_scores_0(toy: Collection):

    odd = replace(
        toy, queries={q: replace(toy.queries["q1"], id=q, text=text) for q, text in (("a", "the"), ("b", "xylophone"))}
    )
    assert BM25Ranker().score(odd, {"a": ["d1"], "b": ["d2"]}) == {"a": [("d1", 0.0)], "b": [("d2", 0.0)]}


def test_a_bi_encoder_scores_given_passages_as_it_ranks_them(toy: Collection, tmp_path: Path):
    model = BiEncoder(tiny_bert(tmp_path / "model"))
    with Session(lambda: ExactSearch(precision="fp32")) as session:
        opened = model.opened(session)
        ranked, scored = opened.rank(toy, ["q1"], 6), opened.score(toy, {"q1": EVERY, "q2": []})
    assert ids(ranked) == ids(scored) and scored["q2"] == []
    np.testing.assert_allclose([s for _, s in ranked["q1"]], [s for _, s in scored["q1"]], rtol=1e-4)  # sums of fp32
    assert model.score(toy, {"q1": []}) == {"q1": []}


def test_a_run_file_ranks_all_it_has_and_scores_no_other_passages(toy: Collection, tmp_path: Path):
    write_run(tmp_path / "a.trec", {"q1": [("d2", 3.0), ("d1", 2.0), ("d5", 1.0)], "x": [("d1", 1.0)]}, "a")
    run = RunFile(tmp_path / "a.trec")
    assert run.name.endswith("a.trec") and not run.searches
    assert run.rank(toy, ["q1", "q2"], 1) == {"q1": [("d2", 3.0), ("d1", 2.0), ("d5", 1.0)]}
    assert run.score(toy, {"q1": ["d5", "d6", "d2"]}) == {"q1": [("d2", 3.0), ("d5", 1.0)]}
    with pytest.raises(UnknownQueries, match="no query of local:"):
        run.score(toy, {"q3": ["d1"]})


def test_a_fusion_scores_given_passages(toy: Collection, tmp_path: Path):
    write_run(tmp_path / "a.trec", {"q1": [("d2", 3.0), ("d1", 2.0)]}, "a")
    fusion = Fusion([str(tmp_path / "a.trec")], {"short": Shortest()}, k=0)
    assert fusion.score(toy, {"q1": ["d1", "d2", "d6"]}) == {
        "q1": [("d2", pytest.approx(1 + 1 / 3)), ("d1", pytest.approx(1 / 2 + 1 / 2)), ("d6", pytest.approx(1.0))]
    }
    assert not fusion.searches and Fusion(retrievers={"a": Shortest(), "b": BM25Ranker()}).searches


def test_a_reranker_changes_the_top_of_a_run_and_keeps_the_rest(
    toy: Collection, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    both = Reranked(Shortest(), ByRanker(Shortest(+1.0), depth=3))
    assert both.name == "shortest, the best 3 re-ranked by shortest"
    run = both.rank(toy, ["q1"], 5)
    assert ids(run) == ["d3", "d6", "d5", "d1", "d4"] and run["q1"] == best_first(run["q1"])
    assert ids(Reranked(Shortest(), ByRanker(Shortest(+1.0))).rank(toy, ["q1"], 6)) == LONGEST
    write_run(tmp_path / "a.trec", {"q1": [("d4", 3.0)]}, "a")
    partial = Reranked(Shortest(), ByRanker(RunFile(tmp_path / "a.trec"))).rank(toy, ["q1", "q2"], 6)
    assert ids(partial) == ["d4", "d5", "d6", "d3", "d1", "d2"] and ids(partial, "q2") == BY_LENGTH
    assert "has no score for 11 passages, which keep their order" in caplog.text


def test_passages_without_text_are_counted_before_they_are_reranked(folder: Path, caplog: pytest.LogCaptureFixture):
    rows = [{"_id": f"d{n}", "title": "", "text": "" if n in (2, 5) else f"text {n}"} for n in range(1, 7)]
    write_jsonl(folder / "corpus.jsonl", rows)
    toy = open_collection(f"local:{folder}:test")
    Reranked(Shortest(), ByRanker(Shortest(+1.0), depth=3)).rank(toy, ["q1", "q2"], 5)
    assert "toy.test: 2 of 3 passages to re-rank have no text, and are ranked as they are" in caplog.text


def test_more_passages_than_there_are_cannot_be_reranked(toy: Collection, tmp_path: Path):
    write_run(tmp_path / "a.trec", {"q1": [("d2", 3.0), ("d1", 2.0)]}, "a")
    with pytest.raises(UserError, match=r"rerank.depth=3: .*a.trec gives at most 2 passages a query; give rerank.depth=2"):
        Reranked(RunFile(tmp_path / "a.trec"), ByRanker(BM25Ranker(), depth=3)).rank(toy, ["q1"], 1000)
    with pytest.raises(UserError, match="rerank.depth=0: at least 1"):
        ByRanker(BM25Ranker(), depth=0)
    settings = composed("evaluate", "rerank=bm25").rerank
    with pytest.raises(UserError, match=r"rerank.depth=100: shortest gives at most 99 passages a query"):
        reranked(Shortest(), settings, 99)
    assert reranked(Shortest(), settings, 100).name == "shortest, the best 100 re-ranked by bm25(k1=1.5, b=0.75)"
    alone = Shortest()
    assert reranked(alone, composed("evaluate").rerank, 1) is alone


def test_a_passage_that_the_corpus_lacks_is_named_with_its_query_and_run(toy: Collection, tmp_path: Path):
    write_run(tmp_path / "x.trec", {"q1": [("d1", 2.0), ("nope", 1.0)]}, "x")
    model = BiEncoder(tiny_bert(tmp_path / "model"))
    for ranker in (model, BM25Ranker()):
        with pytest.raises(UserError, match=r"x\.trec: local:.*: passage 'nope' of query 'q1' is not in the corpus") as error:
            Reranked(RunFile(tmp_path / "x.trec"), ByRanker(ranker)).rank(toy, ["q1"], 9)
        assert "\n" not in str(error.value)


def test_every_ranker_of_a_session_has_a_part_of_its_own(toy: Collection, tmp_path: Path):
    a, b, again = Shortest(), Shortest(), Shortest()
    ranker = Reranked(Fusion(retrievers={"a": a, "b": b}), ByRanker(again))
    cfg = composed("evaluate", "measures=[RR@10]", "retrieval_depth=6")
    Evaluator(cfg, tmp_path / "run").evaluate([toy], ranker)
    assert [part for of in (a, b, again) for _, part in of.sessions] == ["a", "b", "rerank"]
    assert len({id(session) for of in (a, b, again) for session, _ in of.sessions}) == 1


def test_a_new_retriever_is_a_class_and_a_yaml(toy: Collection, folder: Path, tmp_path: Path):
    """Alone, in a fusion, as a re-ranker of a search and of a run file, and as a source of pools."""
    new = "{_target_: test_rankers.Shortest}"
    common = [f"collections=[local:{folder}:test]", "logger=none", "measures=[RR@10]", "retrieval_depth=6"]

    def run(name: str, *overrides: str) -> Run:
        evaluate(composed("evaluate", *common, *overrides), tmp_path / name)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert "shortest" in manifest["ranker"] or manifest["ranker"] == "rrf(new, back)"
        return read_run(tmp_path / name / "runs" / "toy.test.trec")

    assert ids(run("alone", "retriever._target_=test_rankers.Shortest", "+retriever.sign=1.0")) == LONGEST
    fusion = ["retriever=fusion", f"retriever.retrievers={{new: {new}, back: {{_target_: test_rankers.Shortest, sign: 1.0}}}}"]
    assert ids(run("fused", *fusion, "retriever.weights={back: 0.1}")) == BY_LENGTH
    rerank = ["rerank._target_=uar.reranking.ByRanker", f"+rerank.retriever={new}", "+rerank.depth=6"]
    assert ids(run("reranked", "retriever._target_=test_rankers.Shortest", "+retriever.sign=1.0", *rerank)) == BY_LENGTH
    write_run(tmp_path / "a.trec", {q: [("d1", 2.0), ("d6", 1.0)] for q in toy.queries}, "a")
    file = [f"run={tmp_path / 'a.trec'}", "measures=[RR@2]"]
    assert ids(run("file", *file, "retriever._target_=test_rankers.Shortest")) == ["d6", "d1"]
    assert DensePool(depth=2, retriever=Shortest, shuffle=False).pools(toy, ["q1"]) == {"q1": ["d5", "d1"]}  # d1: positive


def test_a_new_encoder_is_trained_mined_with_and_its_run_reranked(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
):
    bag = ["retriever=none", "retriever._target_=test_rankers.Bag", f"+retriever.model={tiny_bert(tmp_path / 'tokenizer')}"]
    mined = ["label_source=curriculum", "+candidates@label_source.stages.human.candidates=dense"]
    quick = [*SMALL, "logger=none", "rag=off", "trainer=cpu", "trainer.precision=fp32", "training.learning_rate=0.01"]
    ok(command("train", *bag, *mined, *quick, "rerank=bm25", "rerank.depth=6", "training.keep_checkpoints=true",
               "hydra.run.dir=run"))  # fmt: skip
    stages = metrics(tmp_path / "run")["train"]
    assert all(0 < stages[name]["best dev nDCG@10"] <= 1 for name in ("llm", "human"))
    state = torch.load(tmp_path / "run" / "model" / "words.pt", weights_only=True)
    best = torch.load(tmp_path / "run" / "checkpoints" / "1-human" / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["words.weight"], best["retriever.words.weight"])
    assert (tmp_path / "run" / "checkpoints" / "1-human" / "candidates.jsonl").is_file()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["model"] == "bag" and manifest["ranker"] == "bag, the best 6 re-ranked by bm25(k1=1.5, b=0.75)"
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "Not of this model alone, but of `bag, the best 6 re-ranked by bm25(k1=1.5, b=0.75)`." in card


def test_a_run_is_reranked_by_a_bi_encoder(
    folder: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]], fails: Callable[..., str]
):
    shown = {q: [(d, float(-at)) for at, d in enumerate(("d4", "d5", "d1", "d2", "d3"))] for q in ("q1", "q2", "q3")}
    write_run(tmp_path / "x.trec", shown, "x")
    given = ["run=x.trec", f"collections=[local:{folder}:test]", "logger=none", "measures=[RR@5]", "hydra.run.dir=run"]
    model = ["rerank=bi_encoder", "rerank.retriever.layers=3"]
    ok(command("uar.evaluate", *given, *model, "rerank.depth=3"))
    run = read_run(tmp_path / "run" / "runs" / "toy.test.trec")
    assert all(set(ids(run, q)[:3]) == {"d4", "d5", "d1"} and ids(run, q)[3:] == ["d2", "d3"] for q in run)
    assert ids(run)[0] == "d1"
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["ranker"].startswith("x.trec, the best 3 re-ranked by ") and manifest["ranker"].endswith("-l3")
    error = fails("uar.evaluate", *given, *model)
    assert "rerank.depth=100: x.trec gives at most 5 passages a query; give rerank.depth=5 or less" in error


def test_a_choice_of_a_users_own_folder_is_taken_with_options_of_any_kind(
    tmp_path: Path, folder: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    own = tmp_path / "own" / "retriever"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("_target_: uar.retrievers.bm25.bm25_ranker.BM25Ranker\nk1: 0.9\nb: 0.4\n")
    place = f"hydra.searchpath=[file://{tmp_path / 'own'}]"
    options = [f"collections=[local:{folder}:test]", "retriever=mine", "retriever.k1=1.2", "hydra.run.dir=run", "logger=none"]
    ok(command("uar.evaluate", place, *options))
    assert "k1: 1.2" in (tmp_path / "run" / "config.yaml").read_text()
