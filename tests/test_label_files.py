"""Labels from files: every layout, and every fault told in one line with its place."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import SHARED

from uar.annotation.annotators import Judgement
from uar.annotation.outputs import write_labels
from uar.errors import DataError
from uar.storage import labelled_pairs
from uar.storage.labelled_pairs import FileLabel, read_labels
from uar.storage.lines import NO_WORD

EXPECTED = {"q1": {"d1": FileLabel(2), "7": FileLabel(0)}, "2": {"d1": FileLabel(1)}}
TEXTS = {
    "trec.qrels": "q1 0 d1 2\nq1\tQ0  7 0\n\n2 0 d1 1\n",
    "trec.tsv": "q1\t0\td1\t2\nq1\t0\t7\t0\n2\t0\td1\t1\n",
    "beir.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t7\t0\n2\td1\t1\n",
    "bom.tsv": "\ufeffquery_id\tdoc_id\tgrade\r\nq1\td1\t2\r\nq1\t7\t0\r\n2\td1\t1\r\n",
    "bare.txt": "q1\td1\t2\nq1\t7\t0\n2\td1\t1\n",
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_every_layout_of_text_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TEXTS[name].encode())
    found = read_labels(tmp_path / name)
    assert found == EXPECTED
    assert list(found) == ["q1", "2"]


def test_an_annotate_run_folder_and_its_qrels_are_read(tmp_path: Path) -> None:
    judged = {"q1": [Judgement("d2", 1, 2, None, 1), Judgement("d1", 0, 1, None, 2)], "q2": [Judgement("d1", 0, 0, -1.5, 1)]}
    write_labels(tmp_path, judged)
    expected = {
        "q1": {"d2": FileLabel(2, 1, None, 1), "d1": FileLabel(1, 0, None, 2)},
        "q2": {"d1": FileLabel(0, 0, -1.5, 1)},
    }
    assert read_labels(tmp_path) == read_labels(tmp_path / "labels.parquet") == expected
    assert read_labels(tmp_path / "labels.qrels")["q1"] == {"d2": FileLabel(1), "d1": FileLabel(0)}


def test_grades_of_three_digits_are_written_and_read(tmp_path: Path) -> None:
    write_labels(tmp_path, {"q1": [Judgement("d1", 1, 200, None, 1)]})
    assert read_labels(tmp_path) == {"q1": {"d1": FileLabel(200, 1, None, 1)}}


def parquet(folder: Path, **columns: object) -> Path:
    path = folder / "given.parquet"
    pq.write_table(pa.table({"query_id": ["q1", "q1"], "doc_id": ["d1", "d2"], **columns}), path)
    return path


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": [True, False]}, [FileLabel(1, 1), FileLabel(0, 0)]),
        ({"grade": [3, 0], "score": [None, None]}, [FileLabel(3), FileLabel(0)]),
        ({"score": [0.5, -2]}, [FileLabel(None, None, 0.5), FileLabel(None, None, -2.0)]),
        ({"rank": [2, 1], "label": [None, 1]}, [FileLabel(None, None, None, 2), FileLabel(1, 1, None, 1)]),
        ({"query_id": [7, 7], "grade": [1, 2], "label": [0, 1]}, [FileLabel(1, 0), FileLabel(2, 1)]),
    ],
)
def test_parquet_with_any_of_the_values_is_read(tmp_path: Path, columns: dict, expected: list[FileLabel]) -> None:
    query_id = str(columns.get("query_id", ["q1"])[0])
    assert read_labels(parquet(tmp_path, **columns)) == {query_id: dict(zip(("d1", "d2"), expected, strict=True))}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.qrels", "q1 0 d1 1\n\nq1 0 d2 1\nq1 0 d1 0\n", "a.qrels:4: passage 'd1' of query 'q1' stands at line 1 too"),
        ("a.tsv", "query1\td1\t1.0\nquery1\td2\t1\n", "a.tsv:1: grade is '1.0'; a whole number is needed"),
        ("a.qrels", "q1 0 d1 1\nq1 0 d2 x\n", "a.qrels:2: grade is 'x'; a whole number is needed"),
        ("a.qrels", "q1 0 d1 1\nq1 0 d2 9999999999\n", "a.qrels:2: grade is 9999999999; a whole number below 2147483648"),
        ("a.qrels", "q1 0 d1 1\nq1 0 d2\n", "a.qrels:2: 3 columns; query, 0, passage and grade"),
        ("a.txt", "q1 d1 1\n", "a.txt:1: 3 columns; query, 0, passage and grade (TREC), or query-id"),
        ("a.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0.5\n", "a.tsv:2: grade is '0.5'"),
        ("a.tsv", "q1\td1\tscore\n", "a.tsv:1: grade is 'score'"),
        ("a.tsv", "q1\td1\t1\nq1\td2\t1\t1\n", "a.tsv:2: 4 columns; query-id, corpus-id and score"),
        ("a.tsv", "q1\td1\t1\n \td2\t1\n", "a.tsv:2: empty query or passage id ('', 'd2')"),
        ("a.tsv", "query-id\tcorpus-id\tscore\n", "a.tsv: no labels; at least one is needed"),
        ("a.txt", "", "a.txt: no labels"),
        ("a.qrels", "q1 0 d1 1\n\udcff 0 d2 1\n", "a.qrels:2: not UTF-8"),
        ("a.csv", "q1,d1,1\n", "a.csv: unknown kind of file '.csv'; allowed: .parquet, .tsv"),
        ("a.parquet", "PAR1", "a.parquet: cannot be read as Parquet"),
    ],
)
def test_a_fault_is_told_with_its_place(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    fault(tmp_path / name, told)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, "given.parquet: columns are query_id, doc_id; query_id, doc_id and one of label, grade, score, rank are needed"),
        ({"doc_id": ["d1", "d1"], "label": [1, 0]}, "given.parquet:2: passage 'd1' of query 'q1' stands at line 1 too"),
        ({"doc_id": [1.0, 2.0], "label": [1, 1]}, "given.parquet: column 'doc_id' holds double; strings are needed"),
        ({"doc_id": ["d1", None], "label": [1, 1]}, "given.parquet:2: empty query or passage id"),
        ({"grade": [1.0, 2.0]}, "column 'grade' holds double; whole numbers are needed"),
        ({"label": [0, 2]}, "given.parquet:2: label is 2; 0 or 1 is needed"),
        ({"label": [0, None]}, "given.parquet:2: no value under label"),
        ({"score": [0.5, float("nan")]}, "given.parquet:2: score is nan"),
        ({"rank": [0, 1]}, "given.parquet:1: rank is 0; ranks count from 1"),
        ({"query_id": [[], []], "rank": [1, 2]}, "column 'query_id' holds list"),
    ],
)
def test_a_fault_in_parquet_is_told_with_its_row(tmp_path: Path, columns: dict, told: str) -> None:
    fault(parquet(tmp_path, **columns), told)


def test_a_folder_or_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    fault(tmp_path, f"{tmp_path}: a folder without labels.parquet")
    fault(tmp_path / "absent.tsv", "absent.tsv: cannot be read")
    fault(tmp_path / "absent.parquet", "absent.parquet: cannot be read")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_real_labels_of_an_llm_are_read() -> None:
    found = read_labels(SHARED / "msmarco_dl20" / "llm_labels" / "test.4prompts_llama3-8b.tsv")
    assert (len(found), sum(map(len, found.values()))) == (54, 11_386)
    assert {label.grade for labels in found.values() for label in labels.values()} == {0, 1, 2, 3}


@pytest.mark.parametrize("suffix", ["qrels", "parquet"])
def test_rows_are_counted_through_all_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(labelled_pairs, "BLOCK", 2)
    path, rows = (
        tmp_path / f"a.{suffix}",
        [("q1", "d1", 1), ("q2", "d1", 0), ("q1", "d2", 2), ("q2", "d1", 0), ("q1", "d3", 1)],
    )

    def write(rows: list[tuple[str, str, int]]) -> None:
        if suffix == "qrels":
            return path.write_text("".join(f"{q} 0 {d} {g}\n" for q, d, g in rows))
        return pq.write_table(pa.table(dict(zip(("query_id", "doc_id", "grade"), zip(*rows, strict=True), strict=True))), path)

    write(rows)
    found = read_labels(path)
    assert found == {"q1": {d: FileLabel(g) for d, g in (("d1", 1), ("d2", 2), ("d3", 1))}, "q2": {"d1": FileLabel(0)}}
    write([*rows, ("q1", "d3", 1), ("q1", "d2", 1)])
    fault(path, f"a.{suffix}:7: passage 'd2' of query 'q1' stands at line 3 too")
    write([*rows, ("q1", "d4", 1 << 31)])
    fault(path, f"a.{suffix}:6: grade is 2147483648; a whole number below 2147483648 is needed")


def test_columns_know_white_space_as_lines_do() -> None:
    letters = [chr(code) for code in range(0x3100)]
    odd = pc.match_substring_regex(pa.array(["", "a b", "\ufeffa", "ab", *letters]), NO_WORD).to_pylist()
    assert odd == [True, True, True, False, *(letter.split() != [letter] for letter in letters)]


def test_an_id_that_the_beginning_of_a_file_would_lose_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("q0\td1\t1\n\ufeffq1\td1\t1\n", encoding="utf-8")
    fault(path, "a.tsv:2: the id '\\ufeffq1' begins with a byte-order mark; take it off")


def fault(path: Path, told: str) -> None:
    with pytest.raises(DataError) as error:
        read_labels(path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
