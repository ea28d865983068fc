"""Agreement with people and between annotators: by hand, against scikit-learn, against a naive bootstrap."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SHARED
from sklearn.metrics import cohen_kappa_score, precision_score, recall_score, roc_auc_score

from uar.annotation.annotators import Judgement
from uar.annotation.quality import agreement, compare, judgements_of, table_of, worst_disagreements
from uar.annotation.quality.calibration import calibration
from uar.annotation.quality.figures import write_figures
from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.storage.labelled_pairs import LabelledPairs, read_pairs

QRELS = {"q1": {"d1": 3, "d2": 0, "d3": 1}, "q2": {"d2": 2, "d1": 0}}  # positive from 2; d4 of q1 is not judged
JUDGED = {
    "q1": [
        Judgement("d2", 1, 2, -0.5, 1),
        Judgement("d1", 1, 3, -0.6, 2),
        Judgement("d4", 1, 2, -0.7, 3),
        Judgement("d3", 0, 0, -0.8, 4),
    ],
    "q2": [Judgement("d2", 0, 1, None, 1), Judgement("d1", 0, 0, None, 2)],
    "q3": [Judgement("d1", 1, 2, None, 1)],  # no judgement by people
}


@pytest.fixture
def small(folder: Path) -> Collection:
    return replace(open_collection(f"local:{folder}:train"), qrels=QRELS, positive_grade=2)


@pytest.fixture
def generated(small: Collection) -> tuple[Collection, dict[str, list[Judgement]], np.ndarray]:
    """60 queries with 5 to 15 passages, grades 0-3 by people and by an annotator who is one off now and then; rows of
    (query, people's grade, the annotator's) beside them."""
    rng = np.random.default_rng(5)
    rows = [(q, h, int(np.clip(h + rng.integers(-1, 2), 0, 3))) for q in range(60) for h in rng.integers(0, 4, 5 + q % 11)]
    qrels: dict[str, dict[str, int]] = {}
    judged: dict[str, list[Judgement]] = {}
    for at, (query, human, grade) in enumerate(rows):
        qrels.setdefault(f"q{query}", {})[f"d{at}"] = int(human)
        pool = judged.setdefault(f"q{query}", [])
        pool.append(Judgement(f"d{at}", int(grade >= 2), grade, None, len(pool) + 1))
    return replace(small, qrels=qrels), judged, np.array(rows)


def test_every_value_by_hand(small: Collection) -> None:
    found = agreement(small, JUDGED)
    assert found is not None
    assert found["queries"] == 2
    assert found["precision"] == pytest.approx(1 / 3)  # d1 of q1 among d2, d1 and d4
    assert found["recall"] == 0.5
    assert found["average_positives"] == 1.5
    assert found["human_positive_ranked_first"] == 0.5
    assert found["judged_pairs"] == 5
    assert found["judged_precision"] == 0.5
    assert found["kappa"] == pytest.approx((3 / 5 - 13 / 25) / (1 - 13 / 25))
    assert (found["prevalence"], found["label_rate"]) == (0.4, 0.4)  # d1 and d2; d1 and d2
    assert found["weighted_kappa"] == pytest.approx(1 - 6 / (28 - 2 * 6 * 6 / 5))
    assert found["histogram"] == {"0": 1, "3": 1}
    counts = [[1, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert found["confusion"] == {"rows": [0, 1, 2, 3], "columns": [0, 1, 2, 3], "counts": counts}
    by_rank = [(r["rank"], r["passages"], r["human_positives"]) for r in found["by_rank"]]
    assert by_rank == [(1, 2, 0.5), (2, 2, 0.5), (3, 1, 0.0), (4, 1, 0.0)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert table_of(found)[:2] == [["precision", "0.333", "0.000 to 0.333"], ["recall", "0.500", table_of(found)[1][2]]]


def test_kappas_are_scikit_learns(generated: tuple) -> None:
    collection, judged, rows = generated
    found = agreement(collection, judged)
    assert found is not None
    human, grade = rows[:, 1], rows[:, 2]
    assert found["kappa"] == pytest.approx(cohen_kappa_score(human >= 2, grade >= 2))
    assert found["weighted_kappa"] == pytest.approx(cohen_kappa_score(human, grade, weights="quadratic"))
    assert found["precision"] == found["judged_precision"] == pytest.approx(precision_score(human >= 2, grade >= 2))
    assert found["recall"] == pytest.approx(recall_score(human >= 2, grade >= 2))


def test_the_area_under_the_roc_curve_is_scikit_learns(generated: tuple) -> None:
    collection, judged, rows = generated
    assert agreement(collection, judged)["auroc"] is None  # type: ignore[index]
    scored = {q: [replace(j, score=float(j.grade)) for j in pool] for q, pool in judged.items()}  # many are equal
    assert agreement(collection, scored)["auroc"] == pytest.approx(roc_auc_score(rows[:, 1] >= 2, rows[:, 2]))  # type: ignore[index]
    assert agreement(replace(collection, positive_grade=9), scored)["auroc"] is None  # type: ignore[index]


def test_intervals_are_those_of_a_naive_bootstrap(generated: tuple) -> None:
    collection, judged, rows = generated
    found = agreement(collection, judged)
    assert found is not None
    rng = np.random.default_rng(1)
    by_query = [rows[rows[:, 0] == q] for q in range(60)]
    drawn: dict[str, list[float]] = {name: [] for name in found["intervals"]}
    for _ in range(1_000):
        chosen = [by_query[q] for q in rng.integers(0, 60, 60)]
        human, grade = np.concatenate(chosen)[:, 1:].T
        drawn["precision"].append(precision_score(human >= 2, grade >= 2))
        drawn["recall"].append(recall_score(human >= 2, grade >= 2))
        drawn["average_positives"].append((grade >= 2).sum() / 60)
        drawn["human_positive_ranked_first"].append(float(np.mean([pool[0, 1] >= 2 for pool in chosen])))
        drawn["prevalence"].append((human >= 2).mean())
        drawn["label_rate"].append((grade >= 2).mean())
        drawn["kappa"].append(cohen_kappa_score(human >= 2, grade >= 2))
        drawn["weighted_kappa"].append(cohen_kappa_score(human, grade, weights="quadratic"))
    drawn["judged_precision"] = drawn["precision"]
    for name, values in drawn.items():
        low, high = np.percentile(values, [2.5, 97.5])
        assert found["intervals"][name] == pytest.approx([low, high], abs=0.15 * (high - low)), name
        assert low <= found[name] <= high


def test_the_order_of_the_queries_does_not_matter_and_the_seed_does(generated: tuple) -> None:
    collection, judged, _ = generated
    found = agreement(collection, judged)
    assert found == agreement(collection, dict(reversed(judged.items())))
    assert found is not None and found["intervals"] != agreement(collection, judged, seed=1)["intervals"]  # type: ignore[index]


def test_without_shared_queries_there_is_nothing_to_tell(small: Collection) -> None:
    assert agreement(small, {}) is None
    assert agreement(small, {"q3": JUDGED["q3"], "q1": []}) is None


def test_nothing_chosen_is_precision_0(small: Collection) -> None:
    found = agreement(small, {q: [replace(j, label=0) for j in pool] for q, pool in JUDGED.items()})
    assert found is not None
    assert (found["precision"], found["recall"], found["judged_precision"], found["kappa"]) == (0.0, 0.0, 0.0, 0.0)


def test_qrels_of_positives_alone_give_no_kappa(small: Collection) -> None:
    found = agreement(replace(small, qrels={"q1": {"d1": 1}, "q2": {"d2": 1}}, positive_grade=1), JUDGED)
    assert found is not None
    assert found["precision"] == pytest.approx(1 / 3) and found["recall"] == 0.5
    assert found["judged_precision"] is found["kappa"] is found["weighted_kappa"] is found["prevalence"] is None
    assert set(found["intervals"]) == {"precision", "recall", "average_positives", "human_positive_ranked_first"}


def test_grades_are_compared_on_equal_scales_only(small: Collection) -> None:
    narrow = {q: [replace(j, grade=min(j.grade, 2)) for j in pool] for q, pool in JUDGED.items()}
    assert agreement(small, narrow)["weighted_kappa"] is None  # type: ignore[index]
    assert agreement(small, narrow, grades=(0, 3))["weighted_kappa"] == pytest.approx(1 - 7 / (23 - 12))  # type: ignore[index]


def test_one_query_has_no_intervals(small: Collection) -> None:
    found = agreement(small, {"q1": JUDGED["q1"]})
    assert found is not None and found["intervals"] == {} and found["kappa"] is not None


def test_two_annotators_by_hand(small: Collection, tmp_path: Path) -> None:
    (tmp_path / "a.qrels").write_text("q1 0 d1 3\nq1 0 d2 0\nq2 0 d2 2\nq1 0 d9 2\n")
    reference = judgements_of(read_pairs(tmp_path / "a.qrels"), 2)
    assert [(j.doc_id, j.label, j.rank) for j in reference["q1"]] == [("d1", 1, 1), ("d9", 1, 2), ("d2", 0, 3)]
    found = compare(JUDGED, reference)
    assert found is not None
    assert (found["queries"], found["pairs"]) == (2, 3)
    assert (found["prevalence"], found["label_rate"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found["equal_labels"] == pytest.approx(1 / 3)  # d1 of q1; not d2 of q1 and d2 of q2
    assert (found["precision"], found["recall"]) == (0.5, 0.5)
    assert found["kappa"] == pytest.approx(cohen_kappa_score([1, 0, 1], [1, 1, 0]))
    assert found["weighted_kappa"] == pytest.approx(cohen_kappa_score([3, 0, 2], [3, 2, 1], weights="quadratic"))
    confusion = {"rows": [0, 2, 3], "columns": [1, 2, 3], "counts": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]}
    assert found["confusion"] == confusion
    assert compare(JUDGED, {"q1": [Judgement("d6", 1, 1, None, 1)]}) is None


def table(folder: Path, **columns: list) -> LabelledPairs:
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return read_pairs(folder / "a.parquet")


def test_labels_of_a_file_are_ranked_and_labelled_as_it_says(tmp_path: Path) -> None:
    values = {"grade": [1, 0, 2], "label": [0, 1, 1], "score": [0.2, 0.9, 0.1], "rank": [None, None, 1]}
    found = judgements_of(table(tmp_path, query_id=["q"] * 3, doc_id=["a", "b", "c"], **values), 1)["q"]
    expected = [Judgement("c", 1, 2, 0.1, 1), Judgement("b", 1, 0, 0.9, 2), Judgement("a", 0, 1, 0.2, 3)]
    assert found == expected


def test_equal_ranks_scores_and_grades_fall_by_passage_id(tmp_path: Path) -> None:
    ids = {"query_id": ["q", "p", "q", "q", "q"], "doc_id": ["b", "d", "d", "a", "c"]}
    judged = judgements_of(table(tmp_path, **ids, grade=[1, 0, 1, 1, 2], score=[0.5, None, None, 0.5, 0.5]), 1)
    assert {q: [j.doc_id for j in of_query] for q, of_query in judged.items()} == {"q": ["c", "a", "b", "d"], "p": ["d"]}
    assert judged.chosen(["p", "q"])["q"] == judged["q"] and list(judged.chosen(["p", "q"])) == ["p", "q"]


def test_scores_alone_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="passage 'a' of query 'q' has a score or a rank alone; "):
        judgements_of(table(tmp_path, query_id=["q"], doc_id=["a"], score=[0.2]), 1)


def test_the_worst_disagreements_come_first(small: Collection) -> None:
    rows = worst_disagreements(small, JUDGED)
    assert [(r.query_id, r.doc_id, r.kind) for r in rows] == [("q1", "d2", "false positive"), ("q2", "d2", "missed positive")]
    first = ("q1", "what pumps blood", "d2", "Bees make honey from the nectar of flowers.", 0, 2, 1, -0.5, 1, "false positive")
    assert rows[0] == first
    pool = [Judgement(f"d{n}", 1, 1, None, n) for n in range(1, 5)] + [Judgement(f"d{n}", 0, 0, None, n) for n in (5, 6)]
    collection = replace(small, qrels={"q1": {"d1": 1, "d2": 0, "d3": 0, "d5": 2, "d6": 2}})
    assert [r.doc_id for r in worst_disagreements(collection, {"q1": pool})] == ["d2", "d3", "d1", "d6", "d5"]
    assert [r.doc_id for r in worst_disagreements(collection, {"q1": pool}, limit=2)] == ["d2", "d6"]
    assert [r.doc_id for r in worst_disagreements(collection, {"q1": pool}, limit=5)] == ["d2", "d3", "d1", "d6", "d5"]
    assert [r.doc_id for r in worst_disagreements(collection, {"q1": pool[:3]}, limit=2)] == ["d2", "d3"]


def test_figures_are_written_where_their_data_are_there(small: Collection, tmp_path: Path) -> None:
    found = agreement(small, JUDGED)
    assert found is not None
    found["calibration"] = calibration(np.log([[0.2, 0.8], [0.7, 0.3]]), 1, np.array([1, 0]), 2.0)
    paths = write_figures(tmp_path / "figures", found)
    assert [p.name for p in paths] == ["positives.png", "confusion.png", "by_rank.png", "reliability.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)
    assert write_figures(tmp_path / "none", {"queries": 2}) == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
@pytest.mark.parametrize(("labels", "kappa"), [("_llama3-8b", 0.167), ("_file-llama70b", 0.303), ("_file-flant5large", 0.240)])
def test_labels_of_trec_dl_20_agree_with_nist_as_published(labels: str, kappa: float) -> None:
    folder = SHARED / "msmarco_dl20"
    collection = replace(open_collection(f"local:{folder}:test"), positive_grade=2)
    judged = judgements_of(read_pairs(folder / "llm_labels" / f"test.4prompts{labels}.tsv"), 2)
    found = agreement(collection, judged)
    assert found is not None
    assert (found["queries"], found["judged_pairs"]) == (54, 11_386)
    assert found["kappa"] == pytest.approx(kappa, abs=0.0005)
    assert found["intervals"]["kappa"][0] < kappa < found["intervals"]["kappa"][1]
    assert found["weighted_kappa"] > found["kappa"]
