"""The evaluator on small collections: what it writes, what it leaves behind, what it tells."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import metrics
from omegaconf import OmegaConf
from tiny_models import tiny_bert

from uar.collections import Collection, open_collection, slug
from uar.collections.presets import expand
from uar.errors import UserError
from uar.evaluate import evaluate
from uar.evaluation.depth import DEEPEST
from uar.evaluation.evaluator import Evaluator
from uar.evaluation.metrics_file import update_metrics
from uar.launch.entry import composed
from uar.reranking import ByRanker, Reranked
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.run_file import RunFile
from uar.storage.runs import Run, write_run

SETTINGS = {"measures": ["RR@10"], "rag": {"llm": None}, "search": None, "store": "none", "retrieval_depth": 6}


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def evaluator(folder: Path) -> Evaluator:
    return Evaluator(OmegaConf.create(SETTINGS), folder)


class Ranked(Ranker):
    """What a function ranks."""

    name = "ranked"

    def __init__(self, rank: Callable[[Collection, Sequence[str]], Run]) -> None:
        self._rank = rank

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        return {q: hits[:depth] for q, hits in self._rank(collection, query_ids).items()}

    def score(self, collection: Collection, pools: Pools) -> Run:
        return {}


@Ranked
def right(collection: Collection, query_ids: Sequence[str]) -> Run:
    return {q: [(d, 1.0) for d in collection.positives(q)] for q in query_ids}


def test_parts_of_a_set_become_one_row_of_what_is_returned_and_kept(toy: Collection, tmp_path: Path):
    parts = [slug(reference) for reference in expand("beir-cqadupstack")]

    @Ranked
    def half(collection: Collection, query_ids: Sequence[str]) -> Run:
        return right.rank(collection, query_ids, 9) if collection.slug == parts[0] else {}

    given = [replace(toy, slug=name) for name in [*parts, "toy.test"]]
    found = evaluator(tmp_path).evaluate(given, half)
    assert found == {"beir-cqadupstack": {"RR@10": pytest.approx(1 / 12)}, "toy.test": {"RR@10": 0.0}}
    kept = metrics(tmp_path)["retrieval"]
    assert kept["beir-cqadupstack"] == found["beir-cqadupstack"] and set(kept) == {*parts, *found}


def test_a_measure_that_looks_at_much_of_the_corpus_is_kept_and_not_shown(
    toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    cfg = OmegaConf.create({**SETTINGS, "measures": ["RR@3", "R@3"]})
    found = Evaluator(cfg, tmp_path).evaluate([toy], right)
    assert found["toy.test"]["R@3"] == metrics(tmp_path)["retrieval"]["toy.test"]["R@3"] == 1.0
    table, *notes = [record.getMessage() for record in caplog.records][-2:]
    assert "RR@3" in table and " R@3" not in table
    assert notes == ["toy.test: R@3 is left out, as it looks at 50% of the 6 passages (metrics.json has it)"]
    assert composed("report").deepest == DEEPEST


def test_an_evaluation_takes_the_place_of_the_one_before(toy: Collection, tmp_path: Path):
    other = replace(toy, slug="other")
    evaluator(tmp_path).evaluate([toy, other], right)
    update_metrics(
        tmp_path, rag={"toy.test": {"EM": 1.0}}, train={"llm": {"steps": 2}}, time={"train": 1.0, "rag toy.test": 2.0}
    )
    left = [f"{name}/toy.test.{end}" for name, end in (("generations", "parquet"), ("runs", "rag.trec"))]
    for name in [*left, "significance.json", "runs/mine.trec"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    evaluator(tmp_path).evaluate([toy], right)
    found = metrics(tmp_path)
    assert set(found["retrieval"]) == {"toy.test"} and found["rag"] == {} and found["train"] == {"llm": {"steps": 2}}
    assert set(found["time"]) == {"train", "retrieval toy.test"}
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*") if path.parent.name != "toy"}
    assert {"runs/toy.test.trec", "runs/mine.trec", "scores/toy.test.parquet"} <= files
    assert not any("other" in name or name in left for name in files)
    assert not (tmp_path / "significance.json").exists()
    assert json.loads((tmp_path / "manifest.json").read_text())["collections"] == {"toy.test": toy.hash}


def test_what_an_evaluation_that_ended_early_retrieved_is_not_retrieved_again(toy: Collection, tmp_path: Path):
    asked: list[str] = []

    class Known(Ranked):
        def __init__(self, own: str | None) -> None:
            self.own = own

        def key(self, collection: Collection) -> str | None:
            return self.own

        def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
            if collection.slug == "broken":
                raise KeyboardInterrupt
            asked.append(collection.slug)
            return right.rank(collection, query_ids, depth)

    def evaluated(own: str | None, *collections: Collection, **settings: object) -> dict[str, dict[str, float]]:
        asked.clear()
        return Evaluator(OmegaConf.create({**SETTINGS, "measures": ["RR@4"], **settings}), tmp_path).evaluate(
            collections, Known(own)
        )

    other = replace(toy, slug="other")
    with pytest.raises(KeyboardInterrupt):
        evaluated("a", toy, replace(toy, slug="broken"))
    found = evaluated("a", toy, other, measures=["RR@5"])
    assert asked == ["other"] and found == {"toy.test": {"RR@5": 1.0}, "other": {"RR@5": 1.0}}
    assert set(metrics(tmp_path)["time"]) == {"retrieval toy.test", "retrieval other"}
    for differs in (
        lambda: evaluated("b", toy, other),
        lambda: evaluated("b", toy, other, retrieval_depth=5),
        lambda: evaluated("b", *(replace(c, qrels={"q1": {"d2": 1}}) for c in (toy, other)), retrieval_depth=5),
        lambda: evaluated(None, toy, other),
        lambda: evaluated(None, toy, other),
    ):
        differs()
        assert asked == ["toy.test", "other"]
    evaluated("a", toy)
    (tmp_path / "runs" / "toy.test.trec").write_text("q1 Q0 d2 1 1 mine\n")
    evaluated("a", toy)
    assert asked == ["toy.test"]


def test_what_makes_a_run_is_in_the_key_of_its_ranker(toy: Collection, tmp_path: Path):
    model, other = (BiEncoder(tiny_bert(tmp_path / f"{n}", num_hidden_layers=n)) for n in (1, 2))
    lists = {"q1": [("d1", 1.0), ("d2", 0.5)]}
    files = [tmp_path / "a.trec", tmp_path / "b.trec"]
    write_run(files[0], lists, "x")
    write_run(files[1], {"q1": lists["q1"][:1]}, "x")
    rankers: list[Ranker] = [
        *(BM25Ranker(), BM25Ranker(b=0.5), model, other, BiEncoder(str(tmp_path / "1"), query_prefix="to ")),
        *(BiEncoder(str(tmp_path / "1"), normalize=True), *map(RunFile, files)),
        *(Fusion(retrievers={"a": BM25Ranker(), "b": encoder}) for encoder in (model, other)),
        *(Reranked(BM25Ranker(), ByRanker(model, depth)) for depth in (2, 3)),
    ]
    keys = [ranker.key(toy) for ranker in rankers]
    assert len(set(keys)) == len(rankers) and None not in keys
    assert keys == [ranker.key(toy) for ranker in rankers]
    assert BM25Ranker().key(toy) != BM25Ranker().key(replace(toy, corpus=toy.corpus.in_language("de")))
    assert Fusion(retrievers={"a": BM25Ranker(), "b": right}).key(toy) is None
    assert Reranked(right, ByRanker(model)).key(toy) is None


def test_queries_without_a_result_and_runs_of_another_corpus_are_told(
    toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    evaluator(tmp_path).evaluate([toy], Ranked(lambda *_: {"q1": [("d1", 1.0)], "q2": []}))
    assert "2 of 3 queries have no result and score 0" in caplog.text and "no passage of the run" not in caplog.text
    caplog.clear()
    evaluator(tmp_path).evaluate([toy], Ranked(lambda _, query_ids: {q: [("x", 1.0)] for q in query_ids}))
    assert "no passage of the run is in the corpus; is it a run of this collection?" in caplog.text


def test_passages_of_a_run_file_that_the_corpus_lacks_are_counted(
    toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    lines = [("q1", "x", 3), ("q1", "d1", 2), ("q2", "d2", 3), ("q3", "y", 2), ("other", "z", 1)]
    run = tmp_path / "own.trec"
    run.write_text("".join(f"{q} Q0 {d} 1 {score} t\n" for q, d, score in lines))
    found = evaluator(tmp_path).evaluate([toy], RunFile(run))
    assert found[toy.slug]["RR@10"] == pytest.approx(0.5)  # (1/2 + 1 + 0) / 3
    assert f"{run}: 2 of 4 passages are not in the corpus of {toy.reference}, such as 'x' of query 'q1'" in caplog.text


def test_a_measure_deeper_than_the_ranking_is_refused_before_anything_is_ranked(toy: Collection, tmp_path: Path):
    def evaluated(measures: list[str], depth: int, ranker: Ranker) -> None:
        cfg = OmegaConf.create({**SETTINGS, "measures": measures, "retrieval_depth": depth})
        Evaluator(cfg, tmp_path / "run").evaluate([toy], ranker)

    asked: list[str] = []
    search = Ranked(lambda collection, ids: asked.extend(ids) or right.rank(collection, ids, 9))  # type: ignore[func-returns-value]
    said = r"^measures=R@100, RR@5 on local:.*: ranked gives at most 4 results a question; give retrieval_depth=6, or give"
    with pytest.raises(UserError, match=said) as error:
        evaluated(["R@100", "RR@5", "RR@4", "AP"], 4, search)
    assert "\n" not in str(error.value) and not asked
    evaluated(["R@100", "AP"], 6, search)  # the corpus has no more than 6
    assert asked
    lists = {q: [(f"d{at}", -float(at)) for at in (1, 2, 3)] for q in ("q1", "q2", "q3")}
    write_run(tmp_path / "cut.trec", lists, "x")
    cut = RunFile(tmp_path / "cut.trec")
    for ranker in (cut, Fusion(runs=[str(tmp_path / "cut.trec")], retrievers={"b": cut}, weights=[1, 0])):
        with pytest.raises(UserError, match=r"gives at most \d results a question; give retrieval_depth=6|give a deeper run"):
            evaluated(["R@100"], 3, ranker)
    with pytest.raises(UserError, match="cut.trec gives at most 3 results a question; give a deeper run"):
        evaluated(["R@5"], 1000, cut)
    evaluated(["R@3"], 1000, cut)


def test_a_run_whose_lists_end_where_nothing_more_was_found_is_measured_with_a_warning(
    toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    lists = {q: [(f"d{at}", -float(at)) for at in range(1, n + 1)] for q, n in (("q1", 1), ("q2", 2), ("q3", 4))}
    write_run(tmp_path / "x.trec", lists, "x")
    found = evaluator(tmp_path / "run").evaluate([toy], RunFile(tmp_path / "x.trec"))
    assert found["toy.test"]["RR@10"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert "no question has more than 4 results, fewer than RR@10 look at" in caplog.text
    assert "search" not in json.loads((tmp_path / "run" / "manifest.json").read_text())  # a file says nothing of one


@pytest.mark.parametrize(
    ("wrong", "kept"),
    [("baseline=nowhere", True), ("retrieval_depth=2", True), ("retriever.k1=-1", False)],  # the last is seen in the search
)
def test_a_refused_evaluation_leaves_no_scores_under_its_config(toy: Collection, tmp_path: Path, wrong: str, kept: bool):
    given = [f"collections=[{toy.reference}]", "retriever=bm25", "measures=[RR@10]", "logger=none"]
    evaluate(composed("evaluate", *given), tmp_path)
    names = ("config.yaml", "manifest.json", "metrics.json")
    before = [(tmp_path / name).read_text() for name in names]
    with pytest.raises(UserError):
        evaluate(composed("evaluate", *given, wrong), tmp_path)
    assert ([(tmp_path / name).read_text() for name in names] == before) is kept
    assert bool(metrics(tmp_path)["retrieval"]) is kept


def test_a_querys_own_document_takes_no_place_of_the_depth(toy: Collection, tmp_path: Path):
    own = replace(toy, drop_own=True, queries={"d1": replace(toy.queries["q1"], id="d1", text="heart body violin")}, qrels={})
    assert [d for d, _ in BM25Ranker().rank(own, ["d1"], 1)["d1"]] == ["d5"]
    model = BiEncoder(tiny_bert(tmp_path / "model"))
    others = [d for d, _ in model.rank(replace(own, drop_own=False), ["d1"], 6)["d1"] if d != "d1"]
    assert [d for d, _ in model.rank(own, ["d1"], 5)["d1"]] == others
    fusion = Fusion(retrievers={"a": model, "b": model})
    assert [d for d, _ in fusion.rank(own, ["d1"], 5)["d1"]] == others


def test_what_an_index_finds_of_the_exact_results_is_in_the_manifest(toy: Collection, tmp_path: Path):
    search = {"_target_": "uar.retrievers.vector_index.FaissSearch"}
    cfg = OmegaConf.create({**SETTINGS, "search": search})
    Evaluator(cfg, tmp_path / "run").evaluate([toy], BiEncoder(tiny_bert(tmp_path / "model")))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["search"]["toy.test"].pop("questions_per_second") > 0
    assert manifest["search"] == {"toy.test": {"recall@6": 1.0}}
    measured = manifest["measured"]
    assert measured.pop("precision") in ("float32", "bfloat16")
    assert measured == {"retrieval_depth": 6, "query_length": 64, "passage_length": 256}
