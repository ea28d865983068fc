import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import ROOT, write_jsonl
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from uar.collections import Collection, open_collection
from uar.collections.checked_files import checked_candidates
from uar.collections.documents import build_corpus
from uar.errors import DataError, UnknownQueries, UserError
from uar.launch.entry import register_resolvers
from uar.pools import (
    BM25Pool,
    DensePool,
    GivenPool,
    PoolSource,
    RunsPool,
    UnionPool,
    pools_of_other_split,
    write_pools,
)
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.bm25.lexical_index import BM25
from uar.retrievers.ranker import Ranker
from uar.storage.runs import write_run


@dataclass(frozen=True)
class Ranked(PoolSource):
    """Every query gets the same ranking."""

    ranking: tuple[str, ...] = ("d6", "d5", "d4", "d3", "d2", "d1")

    def ranked(self, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        return {q: list(self.ranking) for q in query_ids}


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


@pytest.fixture(scope="module")
def mini() -> Collection:
    return open_collection("mini:dev")


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_a_pool_has_at_most_depth_passages_and_each_once(mini: Collection, depth: int) -> None:
    for include_positive in (True, False):
        pools = BM25Pool(depth, include_positive=include_positive).pools(mini, list(mini.queries))
        assert list(pools) == list(mini.queries)
        assert {len(pool) for pool in pools.values()} == {depth}
        assert all(len(set(pool)) == len(pool) for pool in pools.values())


def test_a_depth_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"candidates\.depth=0: at least 1"):
        BM25Pool(0)


def test_without_shuffling_a_pool_is_the_head_of_the_ranking(toy: Collection) -> None:
    pools = Ranked(3, include_positive=False, shuffle=False).pools(toy, ["q1", "q2"])
    assert pools == {"q1": ["d6", "d5", "d4"], "q2": ["d6", "d5", "d4"]}


def test_a_human_positive_takes_the_place_of_the_last_ranked(toy: Collection) -> None:
    assert Ranked(3, shuffle=False).pools(toy, ["q1"]) == {"q1": ["d6", "d5", "d1"]}
    assert Ranked(1, shuffle=False).pools(toy, ["q1"]) == {"q1": ["d1"]}


def test_a_positive_that_was_ranked_keeps_its_place(toy: Collection) -> None:
    assert Ranked(4, shuffle=False).pools(toy, ["q3"]) == {"q3": ["d6", "d5", "d4", "d3"]}


def test_a_positive_that_was_ranked_last_stays_where_another_is_joined(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\td4\t1\nq1\td1\t1\n")
    toy = open_collection(f"local:{folder}:test")
    assert Ranked(3, shuffle=False).pools(toy, ["q1"]) == {"q1": ["d6", "d4", "d1"]}


def test_as_many_positives_as_the_pool_is_deep_leave_a_place_to_a_negative(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\td6\t1\nq1\td5\t3\nq1\td3\t2\nq2\td2\t1\n")
    toy = open_collection(f"local:{folder}:test")  # d6 and d5 are ranked first, then d4
    with caplog.at_level(logging.INFO):
        assert Ranked(2, shuffle=False).pools(toy, ["q1", "q2"]) == {"q1": ["d4", "d5"], "q2": ["d6", "d2"]}
    assert "1 of 2 queries have at least candidates.depth=2 human positives" in caplog.text
    assert "2 positives are left out" in caplog.text
    assert Ranked(3, shuffle=False).pools(toy, ["q1"]) == {"q1": ["d5", "d4", "d3"]}
    assert Ranked(1, shuffle=False).pools(toy, ["q1"]) == {"q1": ["d5"]}
    assert Ranked(2, shuffle=False, include_positive=False).pools(toy, ["q1"]) == {"q1": ["d6", "d5"]}
    assert set(BM25Pool(2).pools(toy, ["q1"])["q1"]) - {"d3", "d5", "d6"}  # looked up deeper than 2


def test_a_pool_of_positives_alone_is_whole(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\nq1\td2\t3\nq1\td3\t2\n")
    toy = open_collection(f"local:{folder}:test")
    path = folder / "pools.jsonl"
    write_jsonl(path, [{"query_id": "q1", "candidates": ["d1"]}])
    assert GivenPool(2, shuffle=False, path=str(path)).pools(toy, ["q1"]) == {"q1": ["d2", "d3"]}


def test_positives_of_mini_are_joined_or_left_to_the_ranking(mini: Collection, caplog: pytest.LogCaptureFixture) -> None:
    ids = list(mini.queries)
    ranked = BM25Pool(4, include_positive=False, shuffle=False).pools(mini, ids)
    caplog.set_level(logging.INFO)
    joined = BM25Pool(4).pools(mini, ids)
    assert f"Human positives are put into {sum(set(joined[q]) != set(pool) for q, pool in ranked.items())} of" in caplog.text
    caplog.clear()
    assert all(set(mini.positives(q)[:4]) <= set(joined[q]) for q in ids)
    bare = BM25Pool(4, include_positive=False).pools(mini, ids)
    assert "Human positives" not in caplog.text
    assert {q: set(pool) for q, pool in bare.items()} == {q: set(pool) for q, pool in ranked.items()}
    assert any(not set(mini.positives(q)) & set(bare[q]) for q in ids)


def test_the_order_depends_on_seed_and_query_alone(mini: Collection) -> None:
    ids = list(mini.queries)
    source = BM25Pool(8, seed=3)
    pools = source.pools(mini, ids)
    assert source.pools(mini, ids[5:2:-1]) == {q: pools[q] for q in ids[5:2:-1]}
    assert source.pools(mini, ids[:1]) == {ids[0]: pools[ids[0]]}
    other = replace(source, seed=4).pools(mini, ids)
    assert {q: set(pool) for q, pool in other.items()} == {q: set(pool) for q, pool in pools.items()}
    assert sum(other[q] != pools[q] for q in ids) > len(ids) // 2


def test_queries_with_the_same_pool_see_it_in_different_orders(toy: Collection) -> None:
    pools = Ranked(6).pools(toy, ["q1", "q2", "q3"])
    assert len({tuple(pool) for pool in pools.values()}) == 3
    assert {frozenset(pool) for pool in pools.values()} == {frozenset(Ranked(6).ranking)}


def test_the_positive_stands_anywhere_in_the_shown_order(mini: Collection) -> None:
    pools = BM25Pool(8).pools(mini, list(mini.queries))
    places = {pools[q].index(mini.positives(q)[0]) for q in mini.queries}
    assert len(places) >= 6


def test_written_pools_are_read_back_equal(mini: Collection, tmp_path: Path) -> None:
    pools = BM25Pool(8).pools(mini, list(mini.queries))
    path = tmp_path / "candidates" / "pools.jsonl"
    write_pools(path, pools)
    assert checked_candidates(path, mini.queries, mini.corpus) == pools
    given = GivenPool(8, include_positive=False, shuffle=False, path=str(path))
    assert given.pools(mini, list(mini.queries)) == pools


def test_given_pools_come_from_the_collection_or_a_file(folder: Path) -> None:
    (folder / "candidates").mkdir()
    write_jsonl(folder / "candidates" / "test.jsonl", [{"query_id": "q1", "candidates": ["d6", "d5", "d4"]}])
    toy = open_collection(f"local:{folder}:test")
    source = GivenPool(2, include_positive=False, shuffle=False)
    assert source.pools(toy, ["q1", "q2"]) == {"q1": ["d6", "d5"], "q2": []}
    write_jsonl(folder / "other.jsonl", [{"query_id": "q1", "candidates": ["d2", "d3"]}])
    assert replace(source, path=str(folder / "other.jsonl")).pools(toy, ["q1"]) == {"q1": ["d2", "d3"]}


def test_a_query_without_given_candidates_may_still_get_its_positive(folder: Path) -> None:
    (folder / "candidates").mkdir()
    write_jsonl(folder / "candidates" / "test.jsonl", [{"query_id": "q1", "candidates": ["d6"]}])
    toy = open_collection(f"local:{folder}:test")
    assert GivenPool(4).pools(toy, ["q2"]) == {"q2": ["d2"]}


def test_given_pools_where_there_are_none_are_refused(toy: Collection, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="candidates=bm25"):
        GivenPool(4).pools(toy, ["q1"])
    with pytest.raises(DataError, match="absent.jsonl"):
        GivenPool(4, path=str(tmp_path / "absent.jsonl")).pools(toy, ["q1"])


def test_a_union_takes_its_sources_by_turns_each_as_deep_as_its_own_depth(toy: Collection) -> None:
    one, two = Ranked(2), Ranked(3, ranking=("d1", "d6", "d2", "d4"))
    union = UnionPool(depth=9, include_positive=False, shuffle=False, sources={"one": one, "two": two})
    assert union.pools(toy, ["q1", "q2"]) == dict.fromkeys(["q1", "q2"], ["d6", "d1", "d5", "d2"])
    assert replace(union, depth=3).pools(toy, ["q1"]) == {"q1": ["d6", "d1", "d5"]}
    assert replace(union, depth=3, include_positive=True).pools(toy, ["q3"]) == {"q3": ["d6", "d1", "d3"]}
    with pytest.raises(UserError, match=r"candidates\.sources is empty"):
        UnionPool(depth=3, sources={})


def test_where_positives_are_not_joined_no_source_and_no_fallback_gives_way_for_them(toy: Collection, tmp_path: Path) -> None:
    judged = replace(toy, qrels={"q1": {"d6": 1, "d5": 1}, "q3": {"d3": 1, "d1": 1}}, candidates={"q3": ["d3", "d1", "d2"]})
    union = UnionPool(depth=4, include_positive=False, shuffle=False, sources={"one": Ranked(2)})
    assert union.pools(judged, ["q1"]) == {"q1": ["d6", "d5"]}
    assert replace(union, include_positive=True).pools(judged, ["q1"]) == {"q1": ["d6", "d4", "d5"]}
    write_jsonl(tmp_path / "train.jsonl", [{"query_id": "q7", "candidates": ["d1"]}])
    given = GivenPool(2, include_positive=False, shuffle=False, path=str(tmp_path / "train.jsonl"))
    assert pools_of_other_split(given, judged, ["q3"]) == {"q3": ["d3", "d1"]}
    assert pools_of_other_split(replace(given, include_positive=True), judged, ["q3"]) == {"q3": ["d2", "d1"]}


def test_the_sources_of_a_union_that_rank_by_a_model_take_the_model_as_it_is_now(toy: Collection) -> None:
    def never() -> Ranker:
        raise AssertionError("the model of before ranks")

    sources = {"bm25": BM25Pool(2), "dense": DensePool(2, retriever=never)}
    union = UnionPool(depth=9, include_positive=False, shuffle=False, sources=sources).ranked_by(BM25Ranker())
    assert union.pools(toy, ["q1"]) == BM25Pool(2, include_positive=False, shuffle=False).pools(toy, ["q1"])


def run_file(path: Path, ranking: dict[str, list[str]]) -> str:
    write_run(path, {q: [(d, float(-at)) for at, d in enumerate(ids)] for q, ids in ranking.items()}, "x")
    return str(path)


def test_runs_are_pooled_each_to_its_own_depth(toy: Collection, tmp_path: Path) -> None:
    a = run_file(tmp_path / "a.trec", {"q1": ["d6", "d5", "d4"], "other": ["d1"]})
    b = run_file(tmp_path / "b.trec", {"q1": ["d5", "d2", "d3"], "q2": ["d1"]})
    pool = RunsPool(9, include_positive=False, shuffle=False, runs=[a, b], top=2)
    assert pool.pools(toy, ["q1", "q2", "q3"]) == {"q1": ["d6", "d5", "d2"], "q2": ["d1"], "q3": []}
    assert replace(pool, top={"a": 3}).pools(toy, ["q1"]) == {"q1": ["d6", "d5", "d2", "d4", "d3"]}
    assert replace(pool, top=[1, 3], depth=2).pools(toy, ["q1"]) == {"q1": ["d6", "d5"]}
    assert replace(pool, include_positive=True).pools(toy, ["q3"]) == {"q3": ["d3"]}


@pytest.mark.parametrize("top", [0, 1.5, {"c": 3}, [1]])
def test_a_depth_of_runs_that_makes_no_sense_is_refused(top: object) -> None:
    with pytest.raises(UserError, match=r"candidates\.top"):
        RunsPool(9, runs=["a.trec", "b.trec"], top=top)


def test_runs_that_are_missing_or_of_other_collections_are_refused(toy: Collection, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"candidates\.runs names no run"):
        RunsPool(9, runs=None)
    with pytest.raises(DataError, match="gone.trec: no such run"):
        RunsPool(9, runs="gone.trec").pools(toy, ["q1"])
    with pytest.raises(UserError, match="a.trec: no query of local:"):
        RunsPool(9, runs=run_file(tmp_path / "a.trec", {"q9": ["d1"]})).pools(toy, ["q1"])
    with pytest.raises(DataError, match="b.trec: passage 'd77' of query 'q1' is not in local:"):
        RunsPool(9, runs=run_file(tmp_path / "b.trec", {"q1": ["d1", "d77"]})).pools(toy, ["q1"])


def test_lines_of_other_splits_are_left_out_of_a_file(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "qrels" / "dev.tsv").write_text("q2\td2\t1\n")
    path = folder / "pools.jsonl"
    write_jsonl(path, [{"query_id": "q1", "candidates": ["d5"]}, {"query_id": "q2", "candidates": ["d6", "d5", "d6"]}])
    given = GivenPool(4, include_positive=False, shuffle=False, path=str(path))
    with caplog.at_level("INFO"):
        assert given.pools(open_collection(f"local:{folder}:dev"), ["q2"]) == {"q2": ["d6", "d5"]}
    assert "pools.jsonl: 1 lines are of queries that local:" in caplog.text
    write_jsonl(path, [{"query_id": "q1", "candidates": ["d5"]}])
    with pytest.raises(UnknownQueries, match=r"pools.jsonl: none of its 1 lines is of a query of local:.*:dev; give"):
        given.pools(open_collection(f"local:{folder}:dev"), ["q2"])
    write_jsonl(path, [{"query_id": "q2", "candidates": ["d9"]}])
    with pytest.raises(DataError, match="pools.jsonl:1: candidate id 'd9' is not in local:"):
        given.pools(open_collection(f"local:{folder}:dev"), ["q2"])


def test_queries_of_another_split_fall_back_to_its_own_candidates_and_then_to_bm25(
    toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = replace(toy, candidates={"q1": ["d4", "d3", "d2"]})
    expected = {"q1": ["d4", "d3"], "q2": ["d2"], "q3": ["d3"]}
    plain = {"include_positive": False, "shuffle": False}
    write_jsonl(tmp_path / "train.jsonl", [{"query_id": "q7", "candidates": ["d1"]}])
    run = run_file(tmp_path / "train.trec", {"q7": ["d1"]})
    sources = [GivenPool(2, **plain, path=str(tmp_path / "train.jsonl")), RunsPool(2, **plain, runs=[run])]
    for source in [*sources, UnionPool(2, **plain, sources={"one": Ranked(2), "two": sources[1]})]:
        with caplog.at_level("INFO"):
            assert pools_of_other_split(source, own, ["q1", "q2", "q3"]) == expected
        assert (
            "of 3 queries that candidates has no pools of, 1 take the split's own candidates, 2 the best 2 by" in caplog.text
        )
        caplog.clear()
    run = run_file(tmp_path / "both.trec", {"q2": ["d6"]})
    assert pools_of_other_split(RunsPool(2, **plain, runs=[run]), own, ["q1", "q2"]) == {"q1": ["d4", "d3"], "q2": ["d6"]}
    assert pools_of_other_split(Ranked(1), own, ["q1"]) == {"q1": ["d1"]}


def test_a_querys_own_document_stays_out_of_its_pool(toy: Collection, tmp_path: Path) -> None:
    own = replace(toy, queries={"d5": toy.queries["q1"]}, qrels={"d5": {"d1": 1}}, drop_own=True)
    plain = {"include_positive": False, "shuffle": False}
    assert Ranked(2, **plain).pools(own, ["d5"]) == {"d5": ["d6", "d4"]}
    union = UnionPool(depth=3, **plain, sources={"one": Ranked(2)})
    assert union.pools(own, ["d5"]) == {"d5": ["d6", "d4"]}
    a = run_file(tmp_path / "a.trec", {"d5": ["d6", "d5", "d4"]})
    assert RunsPool(9, **plain, runs=[a], top=2).pools(own, ["d5"]) == {"d5": ["d6", "d4"]}


def test_hydra_builds_unions_of_any_sources(toy: Collection, tmp_path: Path) -> None:
    a = run_file(tmp_path / "a.trec", {"q1": ["d6", "d5"]})
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        shape = [
            "~candidates.sources.dense",
            "+candidates@candidates.sources.runs=runs",
            f"candidates.sources.runs.runs=[{a}]",
        ]
        options = ["candidates.depth=3", "candidates.shuffle=false", "candidates.include_positive=false"]
        cfg = compose("annotate", ["candidates=union", *shape, *options])
        runs = compose("annotate", ["candidates=runs", f"candidates.runs={{mine: {a}}}", "candidates.top={mine: 1}", *options])
        usual = compose("annotate", ["candidates=union", "candidates.depth=5"])
    assert [usual.candidates.sources[name].depth for name in ("bm25", "dense")] == [5, 5]
    for convert in ("none", "all"):
        union = instantiate(cfg.candidates, _convert_=convert)
        assert union.pools(toy, ["q1"]) == {"q1": ["d1", "d6", "d5"]}
        assert instantiate(runs.candidates, _convert_=convert).pools(toy, ["q1"]) == {"q1": ["d6"]}


def test_bm25_and_dense_pools_join(mini: Collection) -> None:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("annotate", ["candidates=union", "candidates.depth=6", "candidates.include_positive=false"])
    ids = list(mini.queries)[:4]
    pools = instantiate(cfg.candidates).pools(mini, ids)
    bm25 = BM25Pool(6, include_positive=False, shuffle=False).pools(mini, ids)
    assert all(len(pools[q]) == 6 and set(bm25[q][:3]) <= set(pools[q]) for q in ids)
    assert any(set(pools[q]) - set(bm25[q]) for q in ids)


def test_bm25_ties_fall_by_id_also_at_the_cut(tmp_path: Path) -> None:
    rows = [(i, "", "the heart pumps blood") for i in ("d5", "d3", "d9", "d1", "d7", "d2", "d8", "d4")]
    bm25 = BM25.open(build_corpus(tmp_path / "ties", [("z", "", "blood heart heart heart heart"), *rows, ("a", "", "bees")]))
    order = ["z", "d1", "d2", "d3", "d4", "d5", "d7", "d8", "d9"]
    for k in range(1, 11):
        (hits,) = bm25.search(["heart"], k)
        assert [d for d, _ in hits] == order[:k], k
    assert len({score for _, score in hits[1:]}) == 1


def test_bm25_ranks_by_stemmed_words_and_leaves_out_what_shares_none(toy: Collection) -> None:
    (hits,) = BM25.open(toy.corpus).search(["pumping bodies"], 6)
    assert [d for d, _ in hits] == ["d1"]
    assert BM25.open(toy.corpus).search(["zebra", "", "of the"], 6) == [[], [], []]


def test_the_constants_of_bm25_are_options(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path / "c", [("a", "", "heart"), ("b", "", "heart heart blood"), ("c", "", "bees")])
    ((first, *_),) = BM25.open(corpus).search(["heart"], 1)
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    flat = BM25.open(corpus, k1=0.0, b=0.75).search(["heart"], 2)  # a repeated word adds nothing
    assert flat == [[("a", pytest.approx(idf)), ("b", pytest.approx(idf))]]
    # of a mean length of 5 / 3: 2 / (2 + 0.9 * (0.6 + 0.4 * 3 / (5 / 3))) and 1 / (1 + 0.9 * (0.6 + 0.4 / (5 / 3)))
    (anserini,) = BM25.open(corpus, 0.9, 0.4).search(["heart"], 2)
    assert anserini == [("b", pytest.approx(idf * 2 / 3.188)), ("a", pytest.approx(idf / 1.756))]
    assert BM25.open(corpus).search(["heart"], 1)[0][0] == first
    with pytest.raises(UserError, match="BM25 with k1=-1, b=0.4: k1 from 0 on"):
        BM25.open(corpus, -1, 0.4)


def test_bm25_scores_are_lucenes(tmp_path: Path) -> None:
    texts = {"a": "honey honey bees", "b": "honey water", "c": "iron water rust steel"}
    bm25 = BM25.open(build_corpus(tmp_path / "lucene", [(i, "", text) for i, text in texts.items()]))
    (hits,) = bm25.search(["honey"], 3)
    idf = 0.4700036292457356  # ln(1 + (3 - 2 + 0.5) / (2 + 0.5))
    tf_a = 2 / (2 + 1.5 * (0.25 + 0.75 * 3 / 3))
    tf_b = 1 / (1 + 1.5 * (0.25 + 0.75 * 2 / 3))
    assert dict(hits) == pytest.approx({"a": idf * tf_a, "b": idf * tf_b})


def test_bm25_of_a_corpus_without_a_word_is_refused(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path / "bare", [("a", "", ""), ("b", "", "the of")])
    with pytest.raises(UserError, match="no words"):
        BM25.open(corpus)


def test_a_passage_of_ten_thousand_words_is_ranked(tmp_path: Path) -> None:
    long = " ".join(f"word{i}" for i in range(10_000))
    bm25 = BM25.open(build_corpus(tmp_path / "long", [("long", "", long), ("short", "", "nothing of the kind")]))
    assert [d for d, _ in bm25.search(["word9999"], 2)[0]] == ["long"]
