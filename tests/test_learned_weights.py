"""Weights of a fusion that are learned from judged questions."""

import json
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import metrics, ok
from hydra.utils import instantiate

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluation.measures import per_query
from uar.launch.entry import composed
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.fusion.learned_weights import learned_weights
from uar.retrievers.fusion.methods import fuse
from uar.retrievers.model_folder import open_model
from uar.storage.ordering import best_first
from uar.storage.runs import Run, write_run

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def dev() -> Collection:
    return open_collection("mini:dev")


def noisy(collection: Collection, seed: int, signal: float) -> Run:
    """Each question's positives among passages drawn at random, higher by `signal` than they would be by chance."""
    drawn = random.Random(seed)
    ids = list(collection.corpus.ids())
    run = {}
    for query_id in collection.queries:
        scores = {d: drawn.random() for d in drawn.sample(ids, 30)}
        scores |= {d: drawn.random() + signal for d in collection.positives(query_id)}
        run[query_id] = best_first(scores.items())
    return run


def ndcg(collection: Collection, run: Run) -> float:
    values = [value for _, _, value in per_query(collection, run, ["nDCG@10"], collection.queries)]
    return sum(values) / len(values)


@pytest.mark.parametrize("method", ["rrf", "weighted"])
def test_two_weights_are_the_best_of_the_whole_grid(dev: Collection, method: str):
    runs = [noisy(dev, 0, 0.6), noisy(dev, 1, 0.1)]
    found = learned_weights(runs, dev, method)
    grid = {n / 20: ndcg(dev, fuse(runs, method, [n / 20, 1 - n / 20])) for n in range(21)}
    assert found.value == pytest.approx(max(grid.values())) and found.value > max(found.alone)
    assert grid[round(found.weights[0], 2)] == pytest.approx(found.value)
    assert found.equal == pytest.approx(grid[0.5])
    assert found.alone == pytest.approx([ndcg(dev, run) for run in runs])


def test_of_three_runs_none_alone_and_no_equal_weights_are_better(dev: Collection):
    runs = [noisy(dev, 0, 0.1), noisy(dev, 1, 0.5), noisy(dev, 2, 0.3)]
    found = learned_weights(runs, dev, "weighted")
    assert found.value > max(*found.alone, found.equal) and sum(found.weights) == pytest.approx(1)
    assert found.value == pytest.approx(ndcg(dev, fuse(runs, "weighted", found.weights)))


def test_weights_that_bring_nothing_stay_equal(dev: Collection):
    run = noisy(dev, 0, 0.4)
    assert learned_weights([run, run], dev).weights == [0.5, 0.5]


def test_a_run_without_some_questions_scores_nothing_for_them(folder: Path):
    collection = open_collection(f"local:{folder}:dev")
    found = learned_weights([{"q1": [("d1", 1.0)]}, {"q2": [("d2", 1.0)], "q3": [("d1", 1.0)]}], collection)
    assert found.alone == pytest.approx([1 / 3, 1 / 3]) and found.value == pytest.approx(2 / 3)


@pytest.fixture
def folder(folder: Path) -> Path:
    """Its dev split has a judgement that its test split lacks."""
    with (folder / "qrels" / "dev.tsv").open("a") as file:
        file.write("q3\td6\t0\n")
    return folder


def test_a_fusion_learns_on_one_split_and_ranks_another(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    collection = open_collection(f"local:{folder}:test")
    wrong = {q: [("d6", 1.0), ("d5", 0.5)] for q in collection.queries}
    write_run(tmp_path / "wrong.trec", wrong, "wrong")
    given = {"runs": [str(tmp_path / "wrong.trec")], "retrievers": {"bm25": BM25Ranker()}, "method": "weighted"}
    learned = Fusion(**given, learn_on=f"local:{folder}:dev")
    assert (
        ndcg(collection, learned.rank(collection, ["q1", "q2", "q3"], 6))
        == 1
        > ndcg(collection, Fusion(**given, weights=[3, 1]).rank(collection, ["q1", "q2", "q3"], 6))
    )
    assert "Weights by nDCG@10 of 3 questions" in caplog.text
    pool = learned.score(collection, {"q1": ["d1", "d6"]})["q1"]
    assert [d for d, _ in pool] == ["d1", "d6"]
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    keys = {Fusion(**given, learn_on=on).key(collection) for on in (None, f"local:{folder}:dev", f"local:{folder}:train")}
    assert len(keys) == 3 and None not in keys


def test_weights_are_learned_in_the_language_of_each_collection():
    english = open_collection("mini:test")
    chinese = replace(english, corpus=english.corpus.in_language("zh"))

    def fusion() -> Fusion:
        given = {"a": BM25Ranker(), "b": BM25Ranker(k1=0.0, b=0.0)}
        return Fusion(None, given, "weighted", learn_on="mini:dev")

    both, ids = fusion(), list(english.queries)
    found = [both.rank(collection, ids, 10) for collection in (english, chinese)]
    assert found == [fusion().rank(collection, ids, 10) for collection in (english, chinese)]


def test_weights_from_generated_questions_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture):
    path = folder / "queries.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["origin"] = "generated"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"a": BM25Ranker(), "b": BM25Ranker(k1=2.0)}
    Fusion(None, given, learn_on=f"local:{folder}:dev").rank(open_collection(f"local:{folder}:test"), ["q1"], 3)
    assert "1 of these questions were written by an LLM" in caplog.text


def test_a_model_and_bm25_are_one_retriever(folder: Path, tiny: list[str]):
    model, learn_on = tiny[0].partition("=")[2], f"local:{folder}:dev"
    cfg = composed("evaluate", "retriever=hybrid", f"retriever.model={model}", f"retriever.learn_on={learn_on}")
    retriever, collection = instantiate(cfg.retriever, _convert_="all"), open_collection(f"local:{folder}:test")
    assert isinstance(retriever, Fusion) and retriever.name.startswith("weighted(model, bm25")
    ids = list(collection.queries)
    by_hand = Fusion(None, {"model": open_model(model), "bm25": BM25Ranker()}, "weighted", learn_on=learn_on)
    assert retriever.rank(collection, ids, 6) == by_hand.rank(collection, ids, 6)
    assert ndcg(collection, retriever.rank(collection, ids, 6)) == 1


def test_weights_are_not_learned_from_what_is_scored_or_from_nothing(folder: Path):
    collection = open_collection(f"local:{folder}:test")
    given = {"retrievers": {"a": BM25Ranker(), "b": BM25Ranker(k1=2.0)}}
    for same in (f"local:{folder}:test", f"local:{folder}/./qrels/..:test"):
        with pytest.raises(UserError, match="learn them on another split"):
            Fusion(**given, learn_on=same).rank(collection, ["q1"], 3)
    with pytest.raises(UserError, match="leave one of them out"):
        Fusion(**given, learn_on=f"local:{folder}:dev", weights=[1, 2])
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n")
    with pytest.raises(UserError, match="no question with a positive judgement"):
        Fusion(**given, learn_on=f"local:{folder}:dev")


def test_the_evaluate_command_keeps_the_weights(tmp_path: Path, command: Command):
    for split in ("dev", "test"):
        of_split = open_collection(f"mini:{split}")
        write_run(tmp_path / f"{split}.trec", noisy(of_split, 0, 0.4), split)
    (tmp_path / "both.trec").write_text("".join((tmp_path / f"{split}.trec").read_text() for split in ("dev", "test")))
    nested = ["retriever.runs=[both.trec]", "+retriever@retriever.retrievers.bm25=bm25", "retriever.learn_on=mini:dev"]
    ok(
        command(
            "uar.evaluate", "retriever=fusion", "collections=[mini:test]", "measures=[nDCG@10]", *nested, "hydra.run.dir=out"
        )
    )
    assert metrics(tmp_path / "out")["retrieval"]["mini.test"]["nDCG@10"] > 0.65
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    weights = [value for name, value in manifest["search"]["mini.test"].items() if name.startswith("weight of")]
    assert len(weights) == 2 and sum(weights) == pytest.approx(1)
