"""Judgements of the review page in the place of a split's own: what counts, what is left out, and that it is said."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uar.annotation.annotate_run import annotate
from uar.collections import open_collection, open_training_split
from uar.collections.people_judgements import texts_hash
from uar.errors import DataError, UserError
from uar.launch.entry import composed
from uar.storage.judgement_files import NAME, read_judgements, write_judgements
from uar.storage.labelled_pairs import read_labels


def row(folder: Path, q: str, d: str, grade: int, who: str = "ann", shown: bool = False, **more: Any) -> dict[str, Any]:
    """With the hash of the texts as they are in the collection of `folder`."""
    found = open_collection(f"local:{folder}:train")
    texts = texts_hash(found.queries[q].text, found.corpus.text(found.corpus.row(d)))
    return {"query_id": q, "doc_id": d, "grade": grade, "who": who, "suggestion_shown": shown, "texts": texts, **more}


def write(place: Path, rows: list[dict[str, Any]], positive_grade: int = 2) -> str:
    write_judgements(place / NAME, rows, {"positive_grade": positive_grade})
    return str(place)


def test_the_middle_grade_of_several_people_counts(folder: Path, tmp_path: Path) -> None:
    given = {("q1", "d1"): [3, 1, 2], ("q1", "d2"): [3, 0], ("q2", "d2"): [2]}
    rows = [row(folder, *pair, grade, f"p{n}") for pair, grades in given.items() for n, grade in enumerate(grades)]
    found = open_training_split("train", str(folder), judgements=write(tmp_path / "r", rows))
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 2}} and found.positive_grade == 2
    assert found.positives("q1") == ["d1"] and found.trainable("q3") == [] and found.assisted == 0
    assert open_training_split("train", str(folder), 1, judgements=str(tmp_path / "r")).positive_grade == 1


def test_labels_made_with_suggestions_never_count_silently(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(folder, "q1", "d1", 3), row(folder, "q1", "d2", 3, shown=True), row(folder, "q2", "d2", 3, shown=True)]
    rows += [row(folder, "q2", "d2", 0, "bob")]
    place = write(tmp_path / "r", rows)
    with caplog.at_level(logging.WARNING):
        own = open_training_split("train", str(folder), judgements=place)
        assert own.qrels == {"q1": {"d1": 3}, "q2": {"d2": 0}} and own.assisted == 0
        assert "2 of 4 judgements, made while an LLM's suggestion was seen, are left out" in caplog.text
        every = open_training_split("train", str(folder), judgements=place, assisted=True)
        assert every.qrels == {"q1": {"d1": 3, "d2": 3}, "q2": {"d2": 0}}, "where somebody saw none, that counts"
        assert every.assisted == 1 and "are not independent of it" in caplog.text
    with pytest.raises(UserError, match="all 2 judgements were made while .* dataset.assisted=true"):
        open_training_split("train", str(folder), judgements=write(tmp_path / "s", rows[1:3]))


def test_agreement_with_labels_that_saw_the_llm_says_so(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(folder, "q1", "d1", 1, shown=True), row(folder, "q2", "d2", 1), row(folder, "q2", "d1", 0)]
    labels = tmp_path / "labels.tsv"
    labels.write_text("q1\td1\t1\nq2\td2\t1\nq2\td1\t1\n")
    given = ["dataset=local", f"dataset.path={folder}", f"dataset.judgements={write(tmp_path / 'r', rows, 1)}"]
    given += ["annotator=import", f"annotator.path={labels}", "logger=none", f"store={tmp_path / 'store'}"]
    for more, judged, assisted in (([], 2, None), (["dataset.assisted=true"], 3, 1)):
        annotate(composed("annotate", *given, *more), tmp_path / "run")
        found = json.loads((tmp_path / "run" / "agreement.json").read_text())
        assert found["judged_pairs"] == judged and found.get("assisted_pairs") == assisted
    assert "agreement with it is too high" in caplog.text


def test_labels_of_another_collection_are_refused_and_changed_texts_left_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(folder, "q1", "d1", 3), row(folder, "q2", "d2", 3)]
    place = write(tmp_path / "r", rows)
    with pytest.raises(DataError, match="none of its 2 judgements is of a question and a passage of mini:train"):
        open_training_split("mini:train", None, judgements=place)
    text = (folder / "corpus.jsonl").read_text().replace("Bees make honey", "Bees make wax")
    (folder / "corpus.jsonl").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert open_training_split("train", str(folder), judgements=place).qrels == {"q1": {"d1": 3}}
    assert "1 of 2 judgements are of other questions or texts" in caplog.text


def test_a_faulty_file_is_one_line(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = {"query_id": ["q1"], "doc_id": ["d1"], "grade": [1]}
    faults: dict[str, tuple[dict[str, list[Any]], str]] = {
        "lacking": ({"query_id": ["q1"], "doc_id": ["d1"]}, "grade are needed too"),
        "words": (good | {"grade": ["high"]}, "column 'grade' holds string; int32 is needed"),
        "null": (good | {"doc_id": pa.array([None], pa.string())}, "null.parquet:1: no value under 'doc_id'"),
    }
    for name, (columns, told) in faults.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        with pytest.raises(DataError, match=told):
            open_training_split("train", str(folder), judgements=str(tmp_path / f"{name}.parquet"))
    pq.write_table(pa.table(good), tmp_path / "good.parquet")  # of somebody else's making
    assert open_training_split("train", str(folder), judgements=str(tmp_path / "good.parquet")).qrels == {"q1": {"d1": 1}}
    assert read_judgements(tmp_path / "good.parquet").about == {}
    assert "good.parquet: 1 of 1 judgements do not say whether a suggestion of an LLM was seen" in caplog.text
    odd = {"query_id": ["q1", "q1"], "doc_id": ["d1", "d2"], "grade": [1, 2], "label": [1, 0]}
    pq.write_table(pa.table(odd), tmp_path / "odd.parquet")
    with pytest.raises(DataError, match="grade 2 is negative and grade 1 positive there"):
        read_judgements(tmp_path / "odd.parquet")


def test_a_file_without_a_positive_grade_has_that_of_its_labels(folder: Path, tmp_path: Path) -> None:
    """Such as a review's labels, or judgements that another program wrote anew."""
    columns = {"query_id": ["q1"] * 3, "doc_id": ["d1", "d2", "d3"], "grade": [1, 2, 3], "label": [0, 1, 1]}
    pq.write_table(pa.table(columns | {"assisted": [False, False, True]}), tmp_path / "labels.parquet")
    found = open_training_split("train", str(folder), judgements=str(tmp_path / "labels.parquet"))
    assert found.positive_grade == 2
    assert found.qrels == {"q1": {"d1": 1, "d2": 2}}, "an LLM's suggestion was seen for the third"


def test_a_label_file_that_says_so_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = {"query_id": ["q1", "q1"], "doc_id": ["d1", "d2"], "label": [1, 0], "assisted": [True, False]}
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    with caplog.at_level(logging.WARNING):
        assert len(read_labels(tmp_path)["q1"]) == 2
    assert "1 labels by people were made while an LLM's suggestion was seen" in caplog.text
