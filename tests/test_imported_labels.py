"""Labels of a file as an annotator's."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_jsonl
from scripted import replayed

from uar.annotation.annotation import Asked
from uar.annotation.annotators import Annotator, Ensemble, Imported, Judgement
from uar.annotation.outputs import write_labels
from uar.annotation.quality import agreement, compare, worst_disagreements
from uar.annotation.selection import Annotations
from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.pools.stored_pools import ShownIds

LABELS = {"q1": {"d1": 2, "d2": 0, "d3": 1}, "q2": {"d2": 1, "d4": 0}}
ALL = {q: {d: (int(g >= 1), g) for d, g in of_query.items()} for q, of_query in LABELS.items()}


def files(place: Path) -> dict[str, Path]:
    """LABELS in every form; each also names a passage and a question that the corpus lacks."""
    rows = [(q, d, g) for q, of_query in (LABELS | {"q9": {"d1": 1}}).items() for d, g in (of_query | {"d99": 2}).items()]
    (place / "labels.qrels").write_text("".join(f"{q} 0 {d} {g}\n" for q, d, g in rows))
    (place / "labels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in rows))
    columns = dict(zip(("query_id", "doc_id", "grade"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), place / "labels.parquet")
    judged: dict[str, list[Judgement]] = {}
    for q, d, g in sorted(rows, key=lambda row: -row[2]):
        judged.setdefault(q, []).append(Judgement(d, int(g >= 1), g, None, len(judged.get(q, [])) + 1))
    write_labels(place / "run", judged)
    return {p.name: p for p in (place / "labels.qrels", place / "labels.tsv", place / "labels.parquet", place / "run")}


def imported(collection: Collection, annotator: Annotator, store: Path) -> dict[str, list[Judgement]]:
    """As the annotate command and training read it, the second of which finds it concluded."""
    first, second = (dict(replayed(store, annotator, [], collection)) for _ in range(2))
    assert first == second and not store.exists()
    return second


@pytest.mark.parametrize("name", ["labels.qrels", "labels.tsv", "labels.parquet", "run"])
def test_labels_of_a_file_are_taken_as_they_are(tmp_path: Path, folder: Path, name: str) -> None:
    collection = open_collection(f"local:{folder}:train")
    path = str(files(tmp_path)[name])
    judged = imported(collection, Imported(path), tmp_path / "store")
    assert {q: {j.doc_id: (j.label, j.grade) for j in js} for q, js in judged.items()} == ALL
    assert [(j.doc_id, j.rank) for j in judged["q1"]] == [("d1", 1), ("d3", 2), ("d2", 3)]
    strict = imported(collection, Imported(path, threshold=2), tmp_path / "store")
    assert [(j.doc_id, j.label, j.grade) for j in strict["q1"]] == [("d1", 1, 2), ("d3", 0, 1), ("d2", 0, 0)]
    assert not any(j.label for j in strict["q2"])
    assert not Imported(path).needs_llm


def test_a_file_with_labels_and_grades_keeps_its_labels_unless_a_threshold_is_given(tmp_path: Path, folder: Path) -> None:
    collection = open_collection(f"local:{folder}:train")
    path = tmp_path / "strict.parquet"
    rows = {"query_id": ["q1"] * 3, "doc_id": ["d1", "d2", "d3"], "label": [1, 0, 0], "grade": [3, 2, 1], "rank": [2, 1, 3]}
    pq.write_table(pa.table(rows), path)
    judged = imported(collection, Imported(str(path)), tmp_path / "store")
    assert [(j.doc_id, j.label, j.grade) for j in judged["q1"]] == [("d2", 0, 2), ("d1", 1, 3), ("d3", 0, 1)]
    judged = imported(collection, Imported(str(path), threshold=2), tmp_path / "store")
    assert [(j.doc_id, j.label) for j in judged["q1"]] == [("d2", 1), ("d1", 1), ("d3", 0)]


def test_a_labels_file_that_was_changed_is_read_again(tmp_path: Path, folder: Path) -> None:
    collection, path = open_collection(f"local:{folder}:train"), tmp_path / "labels.qrels"
    path.write_text("q1 0 d1 0\n")
    assert [j.grade for j in imported(collection, Imported(str(path)), tmp_path / "store")["q1"]] == [0]
    path.write_text("q1 0 d1 2\n")
    assert [j.grade for j in imported(collection, Imported(str(path)), tmp_path / "store")["q1"]] == [2]


def test_labels_of_passages_that_the_corpus_lacks_are_counted_and_labels_of_none_refused(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collection, path = open_collection(f"local:{folder}:train"), str(files(tmp_path)["labels.qrels"])
    pools = ShownIds(collection, Imported(path).own(collection).pools)
    assert dict(pools) == dict(pools.items()) == {"q1": ["d1", "d3", "d2"], "q2": ["d2", "d4"]}
    assert "2 of 7 labels are of passages that the corpus lacks" in caplog.text
    (tmp_path / "other.qrels").write_text("q1 0 e1 1\nq2 0 e2 1\n")
    with pytest.raises(UserError, match="none of its passages is in local:.*, such as 'e1'"):
        Imported(str(tmp_path / "other.qrels")).own(collection)


def test_an_imported_file_cannot_be_a_member(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="annotator.member: Imported"):
        Ensemble(Imported(str(files(tmp_path)["labels.tsv"])), models=2)


def test_passages_of_equal_text_share_what_the_best_ranked_of_them_got(tmp_path: Path, folder: Path) -> None:
    passages = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    copies = [{**passages[0], "_id": "d1a"}, {**passages[0], "_id": "d1b", "title": "Heart"}]
    write_jsonl(folder / "corpus.jsonl", [*passages, *copies])
    rows = {"query_id": ["q1"] * 4 + ["q2"], "doc_id": ["d1a", "d1b", "d2", "d1", "d1"], "grade": [3, 2, 1, 0, 1]}
    pq.write_table(pa.table({**rows, "score": [0.9, 0.5, 0.4, 0.1, 0.7]}), tmp_path / "a.parquet")
    judged = imported(open_collection(f"local:{folder}:train"), Imported(str(tmp_path / "a.parquet")), tmp_path / "store")
    said = [(j.doc_id, j.grade, j.score, j.rank) for j in judged["q1"]]
    assert said == [("d1a", 3, 0.9, 1), ("d1b", 2, 0.5, 2), ("d2", 1, 0.4, 3), ("d1", 3, 0.9, 4)]
    assert [(j.doc_id, j.grade) for j in judged["q2"]] == [("d1", 1)]


def test_questions_that_an_earlier_run_left_out_are_concluded_too(tmp_path: Path, folder: Path) -> None:
    collection, annotator = open_collection(f"local:{folder}:train"), Imported(str(files(tmp_path)["labels.qrels"]))
    asked, annotations = Asked(annotator, [], collection), Annotations(tmp_path / "store")
    first = annotations.own(asked, asked.own.pools.chosen(["q2"])).concluded()
    assert list(first.judgements) == ["q2"]
    assert dict(annotations.choose(asked, "latest").concluded().judgements) == imported(collection, annotator, tmp_path / "s")


def test_columns_are_measured_and_written_as_judgements_are(tmp_path: Path, folder: Path) -> None:
    collection = replace(open_collection(f"local:{folder}:train"), qrels={"q1": {"d1": 0, "d2": 2}, "q2": {"d2": 2, "d4": 1}})
    asked = Asked(Imported(str(files(tmp_path)["run"])), [], collection)
    columns = Annotations(tmp_path / "store").choose(asked, "latest").concluded().judgements
    single = dict(columns)
    assert agreement(collection, columns) == agreement(collection, single) is not None
    assert compare(columns, asked.annotator._judged) == compare(single, dict(asked.annotator._judged)) is not None
    assert worst_disagreements(collection, columns) == worst_disagreements(collection, single) != []
    for name, judged in (("columns", columns), ("single", single)):
        assert write_labels(tmp_path / name, judged) == 5
    for name in ("labels.parquet", "labels.qrels"):
        assert (tmp_path / "columns" / name).read_bytes() == (tmp_path / "single" / name).read_bytes()
