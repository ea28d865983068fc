"""One set of rules for what a file says twice, and for ids, whichever file it is."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_jsonl

from uar.annotation.annotators import Judgement
from uar.annotation.outputs import write_labels
from uar.collections import open_collection
from uar.collections.answer_files import read_answers
from uar.errors import DataError, UserError
from uar.labels import Example, Stage
from uar.labels.label_table import write_label_table
from uar.pools import GivenPool
from uar.storage.candidate_files import read_candidates
from uar.storage.label_files import read_label_columns
from uar.storage.labelled_pairs import FileLabel, read_labels
from uar.storage.qrels import read_qrels, write_qrels
from uar.storage.runs import read_run

Read = Callable[[Path], Any]


def lists(path: Path) -> dict[str, list[str]]:
    return {row.query_id: row.doc_ids for row in read_candidates(path)}


def line(query_id: str, *doc_ids: str) -> str:
    return f'{{"query_id": "{query_id}", "candidates": {list(doc_ids)}}}\n'.replace("'", '"')


SAME = [  # reader, file, content, what it says, how often it repeats itself
    (read_qrels, "a.qrels", "q1 0 d1 1\nq1 0 d2 0\nq1 0 d1 1\n", {"q1": {"d1": 1, "d2": 0}}, "1 judgements"),
    (read_qrels, "a.tsv", "qid\tdid\trel\n" + "q1\td1\t2\n" * 3, {"q1": {"d1": 2}}, "2 judgements"),
    (read_labels, "a.qrels", "q1 0 d1 1\nq1 0 d1 1\n", {"q1": {"d1": FileLabel(1)}}, "1 judgements"),
    (read_run, "a.trec", "q1 Q0 d1 1 2.5 x\nq1 Q0 d1 2 2.50 y\n", {"q1": [("d1", 2.5)]}, "1 passages"),
    (lists, "a.jsonl", line("q1", "b", "a", "b") + line("q2") + line("q1", "b", "a"), {"q1": ["b", "a"], "q2": []}, "3 cand"),
    (read_run, "a.jsonl", line("q1", "b", "a", "b"), {"q1": [("b", 2.0), ("a", 1.0)]}, "1 candidates"),
]


@pytest.mark.parametrize(("read", "name", "content", "says", "told"), SAME)
def test_what_is_said_again_counts_once_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, read: Read, name: str, content: str, says: object, told: str
) -> None:
    (tmp_path / name).write_text(content)
    with caplog.at_level(logging.INFO):
        assert read(tmp_path / name) == says
    assert f"{name}: {told}" in caplog.text and caplog.text.count("say the same") == 1


def test_a_file_without_repeats_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.qrels").write_text("q1 0 d1 1\nq2 0 d1 1\n")
    (tmp_path / "a.jsonl").write_text(line("q1", "a", "b") + line("q2", "b", "a"))
    with caplog.at_level(logging.INFO):
        read_qrels(tmp_path / "a.qrels"), lists(tmp_path / "a.jsonl")
    assert caplog.text == ""


OTHER = [
    (read_qrels, "a.qrels", "\nq1 0 d1 1\nq1 0 d2 1\nq1 0 d1 0\n", ":4: passage 'd1' of query 'q1' stands at line 2 too"),
    (read_labels, "a.tsv", "qid\tdid\trel\nq1\td1\t1\nq1\td1\t2\n", ":3: passage 'd1' of query 'q1' stands at line 2 too"),
    (read_run, "a.trec", "q1 Q0 d1 1 2.5 x\nq1 Q0 d1 2 2.4 x\n", ":2: passage 'd1' of query 'q1' stands at line 1 too"),
    (lists, "a.jsonl", line("q2") + line("q1", "a", "b") + line("q1", "b", "a"), ":3: query 'q1' stands at line 2 too"),
    (read_run, "a.jsonl", line("q1", "a") + "\n" + line("q1"), ":3: query 'q1' stands at line 1 too"),
    (
        read_answers,
        "a.jsonl",
        '{"_id": "q1", "answers": "a"}\n{"_id": "q1", "answers": ["a"]}\n{"_id": "q1", "answers": "b"}',
        ":3: query 'q1' stands at line 1 too",
    ),
]


@pytest.mark.parametrize(("read", "name", "content", "told"), OTHER)
def test_what_contradicts_an_earlier_line_is_refused_with_both(
    tmp_path: Path, read: Read, name: str, content: str, told: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as error:
        read(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}{told} and says something else there")


def test_a_folder_follows_the_rules_for_qrels_and_candidates(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\nq1\td1\t1\n")
    (folder / "candidates").mkdir()
    (folder / "candidates" / "test.jsonl").write_text(line("q1", "d2", "d1") * 2)
    found = open_collection(f"local:{folder}:test")
    assert found.qrels == {"q1": {"d1": 1}} and found.candidates == {"q1": ["d2", "d1"]}
    (folder / "candidates" / "test.jsonl").write_text(line("q1", "d2", "d1") + line("q1", "d1"))
    with pytest.raises(DataError, match=r"test\.jsonl:2: query 'q1' stands at line 1 too"):
        open_collection(f"local:{folder}:test")
    with pytest.raises(DataError, match=r"test\.jsonl:2: query 'q1' stands at line 1 too"):
        GivenPool(4, path=str(folder / "candidates" / "test.jsonl")).pools(found, ["q1"])
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\nq1\td1\t0\n")
    with pytest.raises(DataError, match=r"test\.tsv:2: passage 'd1' of query 'q1' stands at line 1 too"):
        open_collection(f"local:{folder}:test")


def test_a_folder_may_have_the_qrels_of_trec(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1 0 d1 1\nq1\t0\td2\t-1\n")
    assert open_collection(f"local:{folder}:test").qrels == {"q1": {"d1": 1, "d2": -1}}
    (folder / "qrels" / "test.tsv").write_text("q1 0 d1 1\nq1 0 d9 0\n")
    with pytest.raises(DataError, match=r"test\.tsv:2: corpus id 'd9'"):
        open_collection(f"local:{folder}:test")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}\n{"_id": "d 2", "text": "y"}\n', "corpus.jsonl:2: the id 'd 2'"),
        ("corpus.jsonl", '{"_id": "d\\u00a01", "text": "x"}\n', "corpus.jsonl:1: the id 'd\\xa01'"),
        ("queries.jsonl", '{"_id": "q1 ", "text": "x"}\n', "queries.jsonl:1: the id 'q1 '"),
        ("qrels/test.tsv", "q1\td1\t1\nq1\td 2\t1\n", "qrels/test.tsv:2: the id 'd 2'"),
        ("candidates/test.jsonl", line("q1", "d1", "d 2"), "candidates/test.jsonl:1: the id 'd 2'"),
    ],
)
def test_an_id_with_white_space_is_refused_when_the_folder_is_opened(folder: Path, name: str, content: str, told: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    with pytest.raises(DataError) as error:
        open_collection(f"local:{folder}:test")
    assert str(error.value) == f"{folder}/{told} has white space in it, which no TREC file can hold; rename it"


def test_qrels_that_would_have_five_columns_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels\.qrels: the id 'd 1' has white space"):
        write_labels(tmp_path, {"q1": [Judgement("d 1", 1, 1, None, 1)]})
    assert not (tmp_path / "labels.qrels").exists()
    write_qrels(tmp_path / "a.qrels", [("q1", "d1", 2), ("q2", "d1", 0)])
    assert read_qrels(tmp_path / "a.qrels") == {"q1": {"d1": 2}, "q2": {"d1": 0}}


def test_one_reader_takes_the_labels_of_annotate_and_of_train_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    annotated, trained = tmp_path / "annotated", tmp_path / "trained" / "labels.parquet"
    write_labels(annotated, {"q1": [Judgement("d1", 1, 3, -0.5, 1), Judgement("d2", 0, 1, -2.0, 2)]})
    stage = Stage("human", [Example("q1", ("d1",), ("d2",), "human")], 1, "all")
    write_label_table(trained, [stage])
    assert read_labels(annotated) == {"q1": {"d1": FileLabel(3, 1, -0.5, 1), "d2": FileLabel(1, 0, -2.0, 2)}}
    with caplog.at_level(logging.INFO):
        assert read_labels(trained.parent) == {"q1": {"d1": FileLabel(1, 1), "d2": FileLabel(0, 0)}}
    assert f"{trained}: labels of the training stage human" in caplog.text
    names = ("doc_id", "label", "source", "stage", "rank")
    both = [read_label_columns(path, names).to_pylist()[0] for path in (annotated / "labels.parquet", trained)]
    assert both == [
        {"doc_id": "d1", "label": 1, "source": "llm", "stage": None, "rank": 1},
        {"doc_id": "d1", "label": 1, "source": "human", "stage": "human", "rank": None},
    ]
    write_label_table(trained, [stage, Stage("llm", [Example("q1", ("d2",), ("d1",), "llm")], 1, "all")])
    with pytest.raises(DataError, match="labels of 2 stages .human, llm.; give a file with the rows of one of them"):
        read_labels(trained.parent)


def test_no_answers_are_none_wherever_they_stand(folder: Path, tmp_path: Path) -> None:
    rows = [("q1", ["", " \n", "the heart"]), ("q2", ["No Answer Present."]), ("q3", "  ")]
    queries = [{"_id": q, "text": "x", "answers": answers} for q, answers in rows]
    write_jsonl(folder / "queries.jsonl", queries)
    found = open_collection(f"local:{folder}:test")
    assert [query.answers for query in found.queries.values()] == [("the heart",), (), ()]
    assert found.answered(found.queries) == ["q1"]
    write_jsonl(tmp_path / "a.jsonl", queries)
    assert [answers for _, answers in read_answers(tmp_path / "a.jsonl").values()] == [("the heart",), (), ()]


@pytest.mark.parametrize("answers", ["0", "false", '{"a": 1}', "[null]", '["a", 1]'])
def test_answers_of_another_form_are_refused(folder: Path, answers: str) -> None:
    (folder / "queries.jsonl").write_text(f'{{"_id": "q1", "text": "x", "answers": {answers}}}\n')
    with pytest.raises(DataError, match=r"queries\.jsonl:1: 'answers' is .*; a string or a list of strings is needed"):
        open_collection(f"local:{folder}:test")


def test_lines_as_many_as_ms_marcos_are_read_one_by_one(tmp_path: Path) -> None:
    """Only a hash of each list is held."""
    (tmp_path / "a.jsonl").write_text("".join(line(f"q{n}", *(f"d{n}" for n in range(4))) for n in range(2_000)))
    rows = read_candidates(tmp_path / "a.jsonl")
    assert next(rows) == (1, "q0", ["d0", "d1", "d2", "d3"])
    assert sum(1 for _ in rows) == 1_999
