import math
from pathlib import Path

import pytest

from uar.answers import exact_match, f1, normalise
from uar.collections import Collection, open_collection
from uar.errors import DataError
from uar.evaluation.measures import MEASURES, means, per_query
from uar.evaluation.runs import read_run, write_run

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


def test_a_written_run_is_read_back_in_the_same_order_with_ties_apart(tmp_path: Path):
    run = {"q1": [("b", 1.0), ("c", 1.0), ("a", 1.0), ("z", 0.5)], "q2": [("a", 1e-9), ("b", -3.0)]}
    write_run(tmp_path / "x.trec", run, "tag")
    again = read_run(tmp_path / "x.trec")
    assert {q: [d for d, _ in hits] for q, hits in again.items()} == {q: [d for d, _ in hits] for q, hits in run.items()}
    assert len({s for _, s in again["q1"]}) == 4


def test_a_candidates_file_is_a_run_in_its_order(tmp_path: Path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"query_id": "q1", "candidates": ["d9", "d1"]}\n')
    assert read_run(path) == {"q1": [("d9", 2.0), ("d1", 1.0)]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("q1 Q0 d1 1 nan x\n", ":1: score 'nan'"),
        ("q1 Q0 d1 1 2.0 x y\n", ":1: 7 columns"),
        ("q1 Q0 d1 1 2.0 x\nq1 Q0 d1 2 1.0 x\n", "lists a passage twice"),
    ],
)
def test_a_broken_run_is_refused(tmp_path: Path, text: str, told: str):
    (tmp_path / "x.trec").write_text(text)
    with pytest.raises(DataError, match=told):
        read_run(tmp_path / "x.trec")


@pytest.mark.parametrize(
    ("answer", "gold", "em", "overlap"),
    [
        ("The Black Sea.", ["black sea"], 1, 1),
        ("in the Black Sea", ["Black Sea"], 0, 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("1859", ["1858", "1859"], 1, 1),
        ("", ["honey"], 0, 0),
        ("honey honey", ["honey"], 0, 2 * 0.5 * 1 / 1.5),
        ("wax", ["honey"], 0, 0),
    ],
)
def test_em_and_f1_of_short_answers(answer: str, gold: list[str], em: float, overlap: float):
    assert exact_match(answer, gold) == em
    assert f1(answer, gold) == pytest.approx(overlap)


def test_the_squad_normaliser_drops_case_articles_punctuation_and_spaces():
    assert normalise("  The  U.S.A., an  'island'  ") == "usa island"
