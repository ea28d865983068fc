import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, write_jsonl

from uar.collections import Collection, Corpus, open_collection, resolve, slug
from uar.collections.documents import DuplicateId, build_corpus
from uar.collections.reference import distinct_slugs
from uar.errors import DataError, UserError

FOLDERS = {  # folder -> passages, queries of all splits, split -> (judgements, positives)
    "wiki_openqa": (11_585, 2_655, {"train": (1_878, 1_878), "dev": (220, 220), "test": (557, 557)}),
    "wikiqa": (26_270, 3_047, {"train": (20_360, 1_040), "dev": (2_733, 140), "test": (6_165, 293)}),
    "scifact": (5_183, 1_109, {"train": (919, 919), "test": (339, 339)}),
    "msmarco_dl20": (21_581, 54, {"test": (11_386, None)}),
    "msmarco_v2_dl21_dl22": (27_170, 129, {"dl21": (4_814, None), "dl22": (0, 0)}),
    "noveleval": (420, 21, {"test": (420, 130)}),
    "xquad_en": (240, 1_190, {"test": (1_190, 1_190)}),
}


def write_folder(place: Path, corpus: str, queries: str = "", **splits: str) -> Path:
    (place / "qrels").mkdir(parents=True)
    (place / "corpus.jsonl").write_bytes(corpus.encode())
    (place / "queries.jsonl").write_bytes(queries.encode())
    for split, text in (splits or {"test": ""}).items():
        (place / "qrels" / f"{split}.tsv").write_bytes(text.encode())
    return place


def opened(folder: Path, split: str = "test") -> Collection:
    return open_collection(f"local:{folder}:{split}")


def test_a_split_holds_its_own_queries_judgements_and_answers(folder: Path) -> None:
    (folder / "qrels" / "dev.tsv").write_text("q3\td3\t2\nq3\td1\t0\n")
    dev = opened(folder, "dev")
    assert list(dev.queries) == ["q3"]
    assert dev.queries["q3"].text == "where does the danube end"
    assert dev.queries["q3"].answers == ("Black Sea",)
    assert dev.qrels == {"q3": {"d3": 2, "d1": 0}}
    assert dev.positives("q3") == ["d3"]
    assert dev.positives("q1") == []
    assert len(dev.corpus) == 6


def test_crlf_byte_order_marks_and_blank_lines_read_like_plain_files(folder: Path) -> None:
    plain = opened(folder)
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        lines = path.read_bytes().replace(b"\n", b"\r\n").split(b"\r\n", 1)
        path.write_bytes(b"\xef\xbb\xbf" + lines[0] + b"\r\n\r\n  \r\n" + lines[1] + b"\r\n")
    marked = opened(folder)
    assert marked.queries == plain.queries
    assert marked.qrels == plain.qrels
    assert list(marked.corpus.texts()) == list(plain.corpus.texts())
    assert list(marked.corpus.ids()) == list(plain.corpus.ids())


def test_a_byte_order_mark_in_collection_json_is_no_fault(folder: Path) -> None:
    (folder / "collection.json").write_bytes(b'\xef\xbb\xbf{"positive_grade": 2}')
    assert opened(folder).positive_grade == 2


def test_unicode_ids_and_texts_come_back_unchanged(tmp_path: Path) -> None:
    doc_id, text = "döc/中文№1", "Ünïcode: 中文, عربى, 🙂, line\u2028separator and \u0000 nul"
    corpus = json.dumps({"_id": doc_id, "title": "Τίτλος", "text": text}, ensure_ascii=False)
    queries = json.dumps({"_id": "frage-ß", "text": "🙂?", "answers": ["ответ"]}, ensure_ascii=False)
    found = opened(write_folder(tmp_path / "unicode", corpus, queries, test=f"frage-ß\t{doc_id}\t1\n"))
    assert found.corpus.parts(doc_id) == ("Τίτλος", text)
    assert found.queries["frage-ß"].answers == ("ответ",)
    assert found.positives("frage-ß") == [doc_id]


def test_numeric_ids_become_strings(tmp_path: Path) -> None:
    found = opened(
        write_folder(
            tmp_path / "n", '{"_id": 12, "text": "a"}\n{"_id": "012", "text": "b"}', '{"_id": 7, "text": "q"}', test="7\t12\t1"
        )
    )
    assert found.qrels == {"7": {"12": 1}}
    assert list(found.corpus.ids()) == ["12", "012"]
    assert found.corpus.row("012") == 1


def test_a_title_stands_before_the_text_and_may_be_missing(tmp_path: Path) -> None:
    rows = [{"_id": "a", "title": "T", "text": "x"}, {"_id": "b", "text": "y"}, {"_id": "c", "title": None, "text": "z"}]
    corpus = opened(write_folder(tmp_path / "t", "\n".join(map(json.dumps, rows)))).corpus
    assert list(corpus.texts()) == ["T x", "y", "z"]
    assert list(corpus.texts([2, 0])) == ["z", "T x"]
    assert corpus.parts("b") == ("", "y")


@pytest.mark.parametrize(
    ("answers", "expected"), [('"one"', ("one",)), ('["one", "two"]', ("one", "two")), ("[]", ()), ("null", ()), ('""', ())]
)
def test_answers_may_be_a_string_a_list_or_nothing(tmp_path: Path, answers: str, expected: tuple) -> None:
    queries = f'{{"_id": "q", "text": "t", "answers": {answers}}}\n{{"_id": "r", "text": "u"}}'
    found = opened(write_folder(tmp_path / "a", '{"_id": "d", "text": "x"}', queries, test="q\td\t1\nr\td\t1"))
    assert found.queries["q"].answers == expected
    assert found.answered(["q", "r"]) == (["q"] if expected else [])


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n", "qid\tdid\trelevance\n"])
def test_judgements_are_read_with_or_without_a_header(folder: Path, header: str) -> None:
    (folder / "qrels" / "test.tsv").write_text(f"{header}q1\td1\t1\n\nq1\td2\t0\n")
    assert opened(folder).qrels == {"q1": {"d1": 1, "d2": 0}}


@pytest.mark.parametrize(
    "header",
    ["query-id\tscore\tcorpus-id", "corpus-id\tquery-id\tscore", "query-id\tcorpus-id\tscore\tjudge", "qid\titer\trel\tdocno"],
)
def test_judgements_whose_header_has_another_order_are_refused(folder: Path, header: str) -> None:
    cells = "\t".join(["1"] * len(header.split("\t")))
    (folder / "qrels" / "test.tsv").write_text(f"{header}\n{cells}\n")
    with pytest.raises(DataError, match=rf"test.tsv:1: the header is {', '.join(header.split())}; .* in this order"):
        opened(folder)


def test_candidates_keep_their_order_and_lose_repeats(folder: Path) -> None:
    write_jsonl_at(folder / "candidates" / "test.jsonl", [{"query_id": "q2", "candidates": ["d5", "d2", "d5", "d1"]}])
    assert opened(folder).candidates == {"q2": ["d5", "d2", "d1"]}


def test_a_split_may_have_candidates_alone_or_under_a_run_name(folder: Path) -> None:
    write_jsonl_at(folder / "candidates" / "pool.bm25.jsonl", [{"query_id": "q2", "candidates": ["d5"]}])
    pool = opened(folder, "pool")
    assert list(pool.queries) == ["q2"]
    assert pool.qrels == {}
    assert pool.candidates == {"q2": ["d5"]}


def test_a_folder_without_splits_has_one_of_questions_that_nobody_judged(folder: Path) -> None:
    shutil.rmtree(folder / "qrels")
    found = open_collection(f"local:{folder}:train")
    assert (list(found.queries), found.qrels, found.candidates) == (["q1", "q2", "q3"], {}, {})
    with pytest.raises(UserError, match="it has train alone, of questions that nobody judged"):
        open_collection(f"local:{folder}:test")
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\n")
    with pytest.raises(UserError, match="no split 'train' .* it has test: name one of these"):
        open_collection(f"local:{folder}:train")


def test_of_several_run_files_the_one_that_is_taken_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, passage in (("b", "d2"), ("a", "d1")):
        write_jsonl_at(folder / "candidates" / f"test.{name}.jsonl", [{"query_id": "q1", "candidates": [passage]}])
    with caplog.at_level(logging.INFO):
        assert opened(folder).candidates == {"q1": ["d1"]}
    assert "of several candidates test.a.jsonl are taken; others: test.b.jsonl" in caplog.text


def test_the_file_named_after_the_split_comes_before_run_files(folder: Path) -> None:
    write_jsonl_at(folder / "candidates" / "test.a.jsonl", [{"query_id": "q2", "candidates": ["d5"]}])
    write_jsonl_at(folder / "candidates" / "test.jsonl", [{"query_id": "q2", "candidates": ["d1"]}])
    assert opened(folder).candidates == {"q2": ["d1"]}


def test_collection_json_sets_the_grade_that_counts_and_the_gains(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t2\nq1\td2\t1\nq1\td4\t3\nq1\td5\t0\n")
    assert opened(folder).positives("q1") == ["d4", "d1", "d2"]
    assert opened(folder).gains() == {"q1": {"d1": 2, "d2": 1, "d4": 3, "d5": 0}}
    (folder / "collection.json").write_text('{"positive_grade": 2, "graded": false}')
    assert opened(folder).positives("q1") == ["d4", "d1"]
    assert opened(folder).gains() == {"q1": {"d1": 1, "d2": 0, "d4": 1, "d5": 0}}


def test_queries_without_positives_or_candidates_are_kept(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\nq2\td1\t0\n")
    write_jsonl_at(folder / "candidates" / "test.jsonl", [{"query_id": "q3", "candidates": []}])
    found = opened(folder)
    assert list(found.queries) == ["q1", "q2", "q3"]
    assert [len(found.positives(q)) for q in found.queries] == [1, 0, 0]
    assert found.candidates == {"q3": []}


def test_a_passage_of_ten_thousand_words_comes_back_whole(tmp_path: Path) -> None:
    text = " ".join(f"word{i}" for i in range(10_000))
    found = opened(write_folder(tmp_path / "long", json.dumps({"_id": "d", "text": text})))
    assert found.corpus.text(0) == text


def test_references_become_slugs() -> None:
    assert slug("mini:test") == "mini.test"
    assert slug("local:data/wiki_openqa:test") == "wiki_openqa.test"
    assert slug("local:data/wiki openqa/:dev") == "wiki-openqa.dev"
    assert slug("irds:beir/scifact/test") == "beir-scifact-test"


@pytest.mark.parametrize("reference", ["mini", "mini:", "local:somewhere", "local::test", "irds:", "scifact", ""])
def test_a_reference_of_no_known_form_is_refused_with_the_forms(reference: str) -> None:
    with pytest.raises(UserError, match="mini:SPLIT, local:DIR:SPLIT or irds:ID"):
        open_collection(reference)


def test_a_bare_split_belongs_to_the_folder_and_a_whole_reference_stands() -> None:
    assert resolve("dev", "data/toy") == "local:data/toy:dev"
    assert resolve("mini:test", "data/toy") == "mini:test"
    assert resolve(None, "data/toy") is None
    with pytest.raises(UserError, match="dataset.path"):
        resolve("dev", None)


def test_two_references_with_one_file_name_are_refused() -> None:
    distinct_slugs(["mini:test", "mini:test", "local:a/toy:test"])
    with pytest.raises(UserError, match="local:a/toy:test and local:b/toy:test"):
        distinct_slugs(["local:a/toy:test", "local:b/toy:test"])


def test_every_id_is_found_at_its_row_and_others_at_none(own_cache: Path) -> None:
    ids = [f"p{i}" for i in range(20_000)]
    corpus = build_corpus(own_cache / "c", ((i, "", f"text of {i}") for i in ids))
    assert [corpus.row(i) for i in ids[::97]] == list(range(0, 20_000, 97))
    assert list(corpus.ids()) == ids
    assert corpus.row("p20000") == -1
    assert corpus.row("") == -1
    assert corpus.rows(["p19999", "p0"]) == [19_999, 0]
    with pytest.raises(UserError, match="'absent'"):
        corpus.rows(["p1", "absent"])


def test_ids_whose_hashes_collide_are_told_apart(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uar.collections.documents._key", lambda doc_id: len(doc_id))
    corpus = build_corpus(own_cache / "c", [("aa", "", "1"), ("bb", "", "2"), ("c", "", "3")])
    assert [corpus.row(i) for i in ("aa", "bb", "c", "dd")] == [0, 1, 2, -1]
    with pytest.raises(DuplicateId, match="'bb' in rows 2 and 4"):
        build_corpus(own_cache / "d", [("aa", "", "1"), ("bb", "", "2"), ("c", "", "3"), ("bb", "", "4")])
    assert not (own_cache / "d").exists()


def test_a_built_corpus_is_opened_again_and_built_anew_when_the_file_changes(folder: Path, own_cache: Path) -> None:
    first = opened(folder)
    built = (first.corpus.folder / "corpus.arrow").stat()
    second = opened(folder)
    again = (second.corpus.folder / "corpus.arrow").stat()
    assert (second.corpus.folder, again.st_ino, again.st_mtime_ns) == (first.corpus.folder, built.st_ino, built.st_mtime_ns)
    assert second.hash == first.hash
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text().replace("four strings", "five strings"))
    third = opened(folder)
    assert third.corpus.text(4) == "A violin has five strings."
    assert third.corpus.hash != first.corpus.hash
    assert third.hash != first.hash


def test_a_copy_of_a_folder_shares_the_built_corpus(folder: Path, own_cache: Path) -> None:
    other = write_folder(folder.parent / "copy", (folder / "corpus.jsonl").read_text())
    assert opened(other).corpus.folder == opened(folder).corpus.folder


def test_the_hash_of_a_collection_follows_queries_and_judgements(folder: Path) -> None:
    first = opened(folder).hash
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\nq2\td2\t1\nq3\td3\t0\n")
    second = opened(folder).hash
    queries = folder / "queries.jsonl"
    queries.write_text(queries.read_text().replace("what do bees make", "what is made by bees"))
    third = opened(folder)
    counted = [replace(third, **{n: v}).hash for n, v in (("positive_grade", 2), ("graded", False), ("drop_own", True))]
    assert len({first, second, third.hash, *counted}) == 6


@pytest.mark.parametrize(
    ("name", "split", "judgements", "positive"),
    [(name, split, *counts) for name, (_, _, splits) in FOLDERS.items() for split, counts in splits.items()],
)
def test_real_folders_are_read_completely(name: str, split: str, judgements: int, positive: int | None) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no folder {name}")
    found = opened(SHARED / name, split)
    assert len(found.corpus) == FOLDERS[name][0]
    assert sum(len(grades) for grades in found.qrels.values()) == judgements
    if positive is not None:
        assert sum(len(found.positives(q)) for q in found.queries) == positive
    assert all(found.corpus.row(d) >= 0 for grades in found.qrels.values() for d in grades)


@pytest.mark.parametrize("name", list(FOLDERS))
def test_the_splits_of_a_real_folder_part_its_questions(name: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no folder {name}")
    _, queries, splits = FOLDERS[name]
    ids = [q for split in splits for q in opened(SHARED / name, split).queries]
    assert len(set(ids)) == len(ids) == queries


def test_every_shared_folder_is_covered() -> None:
    if not SHARED.is_dir():
        pytest.skip("no shared data")
    assert {p.name for p in SHARED.iterdir() if p.is_dir()} == set(FOLDERS)


BUILD = """
import sys
from pathlib import Path
from uar.collections import open_collection
folder = Path(sys.argv[1])
(folder / "qrels").mkdir(parents=True)
with (folder / "corpus.jsonl").open("w") as file:
    for i in range(1_000_000):
        file.write(f'{{"_id": "p{i}", "title": "", "text": "passage number {i} about subject {i % 997}"}}\\n')
(folder / "queries.jsonl").write_text('{"_id": "q", "text": "subject"}')
(folder / "qrels" / "test.tsv").write_text("q\\tp999999\\t1\\n")
print(len(open_collection(f"local:{folder}:test").corpus))
"""
REOPEN = """
import resource, sys
from uar.collections import open_collection
open_collection("mini:test")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
corpus = open_collection(f"local:{sys.argv[1]}:test").corpus
texts = [corpus.text(corpus.row(f"p{i}")) for i in (0, 123_456, 999_999)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, corpus.row("p1000000"), *texts, sep="\\n")
"""


def test_a_million_passages_reopen_within_500_mib() -> None:
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "UAR_CACHE": f"{place}/cache"}

        def run(code: str) -> list[str]:
            command = [sys.executable, "-c", code, f"{place}/million"]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()

        assert run(BUILD) == ["1000000"]
        kib, missing, *texts = run(REOPEN)
    assert int(kib) < 500 * 1024
    assert missing == "-1"
    assert texts == [f"passage number {i} about subject {i % 997}" for i in (0, 123_456, 999_999)]


def test_a_corpus_opens_from_its_folder_alone(own_cache: Path) -> None:
    built = build_corpus(own_cache / "c", [("a", "T", "x")])
    assert Corpus(own_cache / "c").parts("a") == ("T", "x")
    assert Corpus(own_cache / "c").hash == built.hash


def test_hashes_are_equal_where_texts_are_and_are_kept(own_cache: Path) -> None:
    passages = [("a", "Bees", "make honey."), ("b", "", "Bees make honey."), ("c", "", "make honey.")]
    made = build_corpus(own_cache / "c", passages).text_hashes
    assert made[0] == made[1] != made[2]
    np.save(own_cache / "c" / "texts.npy", made + np.uint64(1))
    assert Corpus(own_cache / "c").text_hashes.tolist() == (made + np.uint64(1)).tolist(), "read, not made again"


def write_jsonl_at(path: Path, rows: list) -> None:
    path.parent.mkdir(exist_ok=True)
    write_jsonl(path, rows)
