import logging
import math
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import MEASURES, SHARED
from ir_measures import iter_calc, parse_measure
from pytrec_eval import RelevanceEvaluator

from uar.collections import Collection, Corpus, Query, open_collection
from uar.collections.answer_match import exact_match, f1, normalise
from uar.errors import UserError
from uar.evaluation.measures import means, parsed, per_query
from uar.storage.ordering import Hit, best_first
from uar.storage.runs import read_run

RUN = {"q1": [("d2", 9.0), ("d1", 8.0)], "q2": [("d2", 3.0)]}


@pytest.fixture
def collection(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def test_measures_have_their_hand_computed_values(collection: Collection):
    values = {(q, m): v for q, m, v in per_query(collection, RUN, MEASURES, collection.queries)}
    assert values["q1", "nDCG@10"] == pytest.approx(1 / math.log2(3))
    assert values["q1", "RR@10"] == values["q1", "AP"] == 0.5
    assert all(values["q2", m] == 1 for m in MEASURES)


def test_a_query_without_result_scores_zero_and_counts(collection: Collection):
    values = per_query(collection, RUN, ["RR@10"], collection.queries)
    assert ("q3", "RR@10", 0.0) in values
    assert means(values)["RR@10"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert means(per_query(collection, {}, MEASURES, collection.queries)) == dict.fromkeys(MEASURES, 0.0)


def test_positives_and_gains_follow_the_collections_grade(folder: Path):
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\nq1\td2\t2\n")
    run = {"q1": [("d1", 2.0), ("d2", 1.0)]}

    def values(settings: str) -> dict[str, float]:
        (folder / "collection.json").write_text(settings)
        found = open_collection(f"local:{folder}:test")
        return means(per_query(found, run, ["nDCG@10", "RR@10"], ["q1"]))

    half = 1 / math.log2(3)
    graded = {"nDCG@10": (1 + 2 * half) / (2 + half), "RR@10": 0.5}
    assert values('{"positive_grade": 2}') == pytest.approx(graded)
    assert values('{"positive_grade": 2, "graded": false}') == pytest.approx({"nDCG@10": half, "RR@10": 0.5})


def graded(seed: int) -> tuple[dict[str, dict[str, int]], dict[str, list[Hit]]]:
    """Random judgements, some of them negative grades, and a random run that misses one query and has many ties."""
    rng = random.Random(seed)
    names = [f"d{i}" for i in range(60)]
    qrels = {f"q{q}": {d: rng.choice([-1, 0, 0, 1, 2, 3]) for d in rng.sample(names, 25)} for q in range(30)}
    run = {q: best_first((d, rng.randrange(9) / 7) for d in rng.sample(names, rng.randrange(1, 40))) for q in list(qrels)[1:]}
    return qrels, run


@pytest.mark.parametrize("seed", range(3))
def test_measures_equal_pytrec_evals(seed: int):
    qrels, run = graded(seed)
    collection = Collection("r", "r", cast(Corpus, None), {q: Query(q, q) for q in qrels}, qrels, positive_grade=2)
    names = {"nDCG@10": "ndcg_cut_10", "R@100": "recall_100", "AP": "map", "P@5": "P_5", "AP@10": "map_cut_10"}
    told = {(q, m): v for q, m, v in per_query(collection, run, [*names, "RR@10", "RR"], qrels)}
    apart = {q: {d: -at for at, (d, _) in enumerate(hits)} for q, hits in run.items()}
    other = RelevanceEvaluator(qrels, set(names.values()) | {"recip_rank"}, relevance_level=2)
    theirs = other.evaluate({q: {d: float(s) for d, s in hits.items()} for q, hits in apart.items()})
    assert set(theirs) == set(run) and len(run) == 29
    for q, values in theirs.items():
        for mine, name in names.items():
            assert told[q, mine] == pytest.approx(values[name], abs=1e-6), (q, mine)
        assert told[q, "RR"] == pytest.approx(values["recip_rank"], abs=1e-6)
        assert told[q, "RR@10"] == pytest.approx(values["recip_rank"] if values["recip_rank"] >= 0.1 else 0, abs=1e-6)
    assert all(told["q0", m] == 0 for m in (*names, "RR@10", "RR"))


@pytest.mark.parametrize("name", ["Bpref", "infAP", "AP(judged_only=True)"])
def test_a_grade_below_0_is_that_of_a_passage_that_nobody_judged(name: str):
    qrels, run = graded(0)
    collection = Collection("r", "r", cast(Corpus, None), {q: Query(q, q) for q in qrels}, qrels, positive_grade=2)
    told = {q: v for q, _, v in per_query(collection, run, [name], run)}
    apart = {q: {d: -float(at) for at, (d, _) in enumerate(hits)} for q, hits in run.items()}
    theirs = {found.query_id: found.value for found in iter_calc([parse_measure(name)(rel=2)], qrels, apart)}
    assert told == pytest.approx({q: theirs[q] for q in run})


def test_judged_documents_alone_are_found_below_the_cutoff(collection: Collection):
    run = {"q1": [*((f"x{i}", 20.0 - i) for i in range(12)), ("d1", 1.0)]}
    values = means(per_query(collection, run, ["nDCG@10", "nDCG(judged_only=True)@10"], ["q1"]))
    assert values == {"nDCG@10": 0, "nDCG(judged_only=True)@10": 1}


def test_a_measure_keeps_the_name_that_was_given_and_an_unknown_one_is_refused(collection: Collection):
    assert means(per_query(collection, RUN, ["MRR@10", "Recall@100"], ["q1"])) == {"MRR@10": 0.5, "Recall@100": 1}
    with pytest.raises(UserError, match="measure 'goodness' is not known"):
        per_query(collection, RUN, ["goodness"], ["q1"])


def graded_collection(**options: Any) -> Collection:
    """Query q judges `good` 3, `fair` 1 and `bad` 0; from 2 up a passage is positive."""
    qrels = {"q": {"good": 3, "fair": 1, "bad": 0}}
    return Collection("r", "r", cast(Corpus, None), {"q": Query("q", "q")}, qrels, positive_grade=2, **options)


def test_a_threshold_that_a_measure_names_is_that_of_the_grades():
    found = graded_collection()
    run = {"q": [("fair", 2.0), ("good", 1.0)]}
    values = means(per_query(found, run, ["RR@10", "RR(rel=1)@10", "AP(rel=2)", "RR(rel=3)@10", "P(rel=4)@1"], ["q"]))
    assert values == {"RR@10": 0.5, "RR(rel=1)@10": 1, "AP(rel=2)": 0.5, "RR(rel=3)@10": 0.5, "P(rel=4)@1": 0}


def test_measures_without_a_threshold_see_the_grades():
    run = {"q": [("good", 3.0), ("bad", 2.0), ("fair", 1.0)]}
    # ERR: a passage of grade g satisfies with (2^g - 1) / 2^4; the third is reached by those the first did not satisfy
    assert means(per_query(graded_collection(), run, ["ERR@10"], ["q"]))["ERR@10"] == pytest.approx(
        7 / 16 + (1 - 7 / 16) * (1 / 16) / 3, abs=1e-5
    )
    binary = means(per_query(graded_collection(graded=False), run, ["ERR@10"], ["q"]))
    assert binary["ERR@10"] == pytest.approx(1 / 16, abs=1e-5)
    swapped = means(per_query(graded_collection(), {"q": [("fair", 2.0), ("good", 1.0)]}, ["Compat(p=0.5)"], ["q"]))
    assert swapped["Compat(p=0.5)"] == pytest.approx((0 + 0.5) / (1 + 0.5))  # binary judgements would give 1


def test_a_grade_that_a_tool_does_not_know_is_told():
    found = replace(graded_collection(), qrels={"q": {"good": 5}})
    with pytest.raises(UserError, match="measures ERR@10: gdeval cannot compute them; it needs grades of at most 4"):
        per_query(found, {"q": [("good", 1.0)]}, ["ERR@10"], ["q"])


def test_two_names_of_one_measure_have_one_value(collection: Collection):
    assert means(per_query(collection, RUN, ["RR@10", "MRR@10"], ["q1"])) == {"RR@10": 0.5, "MRR@10": 0.5}


def test_measures_are_checked_before_anything_is_scored():
    assert list(parsed("R@1000")) == ["R@1000"]
    with pytest.raises(UserError, match="measure 'alpha_nDCG@10': Unsupported .* pyndeval"):
        parsed(["nDCG@10", "alpha_nDCG@10"])
    with pytest.raises(UserError, match="measure 'INST': invalid param"):
        parsed(["INST"])
    with pytest.raises(UserError, match="measures is empty"):
        parsed([])


def test_a_querys_own_document_is_no_result_where_the_collection_says_so(
    collection: Collection, caplog: pytest.LogCaptureFixture
):
    run = {"q1": [("q1", 9.0), ("d1", 8.0)], "q2": [("q1", 3.0), ("d2", 2.0)]}
    assert means(per_query(collection, run, ["RR@10"], ["q1", "q2"]))["RR@10"] == 0.5
    with caplog.at_level(logging.INFO):
        own = replace(collection, drop_own=True)
        assert means(per_query(own, run, ["RR@10"], ["q1", "q2"]))["RR@10"] == 0.75
    assert "the own document of 1 queries is left out" in caplog.text


@pytest.mark.parametrize(
    ("run", "value"), [("bm25", 0.4796), ("d_bert_kd_tasb", 0.6854), ("splade_p_p_ensemble_distil", 0.7197)]
)
def test_stored_runs_of_trec_dl20_have_their_known_values(run: str, value: float):
    place = SHARED / "msmarco_dl20"
    if not place.is_dir():
        pytest.skip("no folder msmarco_dl20")
    dl20 = open_collection(f"local:{place}:test")
    found = per_query(dl20, read_run(place / "candidates" / f"test.{run}.jsonl"), ["nDCG@10"], dl20.queries)
    assert means(found)["nDCG@10"] == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize(
    ("answer", "gold", "em", "overlap"),
    [
        ("The Black Sea.", ["black sea"], 1, 1),
        ("in the Black Sea", ["Black Sea"], 0, 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("1859", ["1858", "1859"], 1, 1),
        ("", ["honey"], 0, 0),
        ("", ["A"], 0, 0),  # which normalises to nothing too
        ("A", ["A"], 1, 0),
        ("honey honey", ["honey"], 0, 2 * 0.5 * 1 / 1.5),
        ("wax", ["honey"], 0, 0),
    ],
)
def test_em_and_f1_of_short_answers(answer: str, gold: list[str], em: float, overlap: float):
    assert exact_match(answer, gold) == em
    assert f1(answer, gold) == pytest.approx(overlap)


def test_the_squad_normaliser_drops_case_articles_punctuation_and_spaces():
    assert normalise("  The  U.S.A., an  'island'  ") == "usa island"


def test_a_measure_that_nothing_computes_says_what_it_lacks():
    with pytest.raises(UserError, match=r"^measure 'alpha_nDCG@10': Unsupported .*pip install ir-measures\[pyndeval\]\)$"):
        parsed(["alpha_nDCG@10"])
    with pytest.raises(UserError, match=r"measure 'nDCG@10\(rel=2\)' is not known; .* or P\(rel=2\)@5, "):
        parsed(["nDCG@10(rel=2)"])
    names = ["Compat(p=0.8)", "AP(rel=2)", "RBP(p=0.8)", "RBP(p=0.8,rel=3)", "RBP", "SDCG(max_rel=3)@10"]
    assert list(parsed(names)) == names


def test_rank_biased_precision_sees_positives_or_the_grades_that_it_names():
    run = {"q": best_first([("good", 4.0), ("fair", 3.0), ("bad", 2.0), ("fine", 1.0)])}
    qrels = {"q": {"good": 3, "fine": 2, "fair": 1, "bad": 0}}
    collection = Collection("r", "r", cast(Corpus, None), {"q": Query("q", "q")}, qrels, positive_grade=2)
    told = means(per_query(collection, run, ["RBP(p=0.5)", "RBP(p=0.5,rel=1)", "RBP(p=0.8,rel=3)", "RBP"], ["q"]))
    wanted = {"RBP(p=0.5)": 0.5 * (1 + 0.5**3), "RBP(p=0.5,rel=1)": 0.5 * (1 + 0.5 + 0.5**3), "RBP(p=0.8,rel=3)": 0.2}
    assert told == pytest.approx(wanted | {"RBP": 0.2 * (1 + 0.8**3)}, abs=1e-9)


OWN = """
import ir_measures

def first(qrels, run):
    return float(run["doc_id"].iloc[0] in set(qrels["doc_id"][qrels["relevance"] > 0]))

First = ir_measures.define_byquery(first, name="First")
RR = ir_measures.define_byquery(first, name="RR")
three = 3
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_measures.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_measures", raising=False)


def test_a_measure_of_ones_own_is_named_by_its_module(collection: Collection, own_module: None):
    names = ["own_measures.First", "own_measures.First@1", "RR@10"]
    values = {(q, m): v for q, m, v in per_query(collection, RUN, names, collection.queries)}
    assert [values[q, "own_measures.First"] for q in ("q1", "q2", "q3")] == [0.0, 1.0, 0.0]
    assert all(values[q, "own_measures.First@1"] == values[q, "own_measures.First"] for q in ("q1", "q2", "q3"))
    assert values["q1", "RR@10"] == 0.5
    with pytest.raises(UserError, match="'own_measures.RR' calls itself RR, as 'RR' does; give one of them another name"):
        parsed(["RR", "own_measures.RR"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module.First", "No module named 'no_such_module'; put no_such_module.py into the folder of the command"),
        ("own_measures.Last", "has no attribute 'Last'"),
        ("own_measures.three", "three is no measure; make it with ir_measures.define_byquery"),
        ("own_measures.First@", "is not known; name it as ir_measures does"),
    ],
)
def test_what_is_no_measure_of_ones_own_is_told(own_module: None, name: str, said: str):
    with pytest.raises(UserError, match=re.escape(f"measure {name!r}")) as error:
        parsed([name])
    assert said in str(error.value) and "\n" not in str(error.value)
