"""A folder of text files as a corpus: what is read, where it is cut, what is left out, and what is said of it."""

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from uar.collections import text_files
from uar.collections.chunks import chunks
from uar.collections.languages import words_in
from uar.collections.sections import Section
from uar.collections.text_files import write_corpus
from uar.errors import UserError
from uar.launch import bars
from uar.storage.near_copies import NearCopies

JAPANESE = "日本語の文章です。これは長い文章で、句点があります。" * 30


def corpus_of(tmp_path: Path, files: Mapping[str, str | bytes], **options: Any) -> tuple[list[dict[str, str]], dict[str, Any]]:
    for name, content in files.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    summary = write_corpus(tmp_path / "texts", tmp_path / "own", **{"words": 120, **options})
    lines = (tmp_path / "own" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], summary


def cut(paragraphs: list[str], most: int, least: int) -> list[str]:
    return [text for _, text in chunks([Section((), tuple(paragraphs))], most, least)]


def sentence(words: int, seed: int = 0) -> str:
    drawn = random.Random(seed).choices(["bees", "hum", "over", "fields", "of", "clover", "and", "thyme"], k=words)
    return " ".join(drawn).capitalize() + "."


def test_passages_are_of_like_length_and_whole_sentences() -> None:
    text = " ".join(sentence(10, seed) for seed in range(13))  # 130 words
    assert [words_in(part) for part in cut([text], 120, 20)] in ([60, 70], [70, 60])
    paragraphs = [" ".join(sentence(10, seed) for seed in range(n, n + 5)) for n in range(3)]
    assert [words_in(part) for part in cut(paragraphs, 120, 20)] in ([50, 100], [100, 50])  # between paragraphs
    wrapped = "\n".join(sentence(n, n).replace(" ", "\n", 1) for n in range(3, 60))
    assert cut([wrapped], 80, 20) == cut([wrapped.replace("\n", " ")], 80, 20)
    found = cut([" ".join(sentence(n, n) for n in range(3, 60))], 80, 20)
    assert all(part.endswith(".") and 20 <= words_in(part) <= 80 for part in found)
    assert " ".join(found).split() == " ".join(sentence(n, n) for n in range(3, 60)).split()
    assert cut([], 120, 20) == [] and cut(["", " "], 120, 20) == []


def test_what_has_no_spaces_or_sentences_is_cut_too() -> None:
    word = cut(["a" * 200_000], 120, 20)
    assert "".join(word) == "a" * 200_000 and max(map(len, word)) <= 120 * 20
    assert [len(part) for part in cut(["漢字" * 500], 120, 20)][:2] == [112, 112]
    japanese = cut([JAPANESE], 120, 20)
    assert "".join(japanese) == JAPANESE and all(part.endswith("。") and len(part) <= 140 for part in japanese)
    listed = "\n".join(f"- item {n} of the list" for n in range(40))
    assert all(part.startswith("- item") for part in cut([listed], 60, 20))


def test_a_pdf_is_read_and_one_that_is_none_is_left_out(tmp_path: Path) -> None:
    words = " ".join(sentence(10, n) for n in range(3))
    rows, summary = corpus_of(tmp_path, {"a.pdf": pdf(words), "b.pdf": b"no pdf", "c.txt": words[::-1]})
    assert (rows[0]["title"], rows[0]["text"]) == ("a", words) and summary["left_out"] == {"unreadable file": 1}
    (row,) = left_out(tmp_path)
    assert row["id"] == "b.pdf" and "a PDF that cannot be read" in row["reason"]


def pdf(text: str) -> bytes:
    """One page with one line."""
    shown = f"BT /F1 12 Tf 10 700 Td ({text}) Tj ET".encode()
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9999 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(shown), shown),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, start=1):
        places.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(body)
    return body + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


def left_out(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "own" / "left_out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_stubs_copies_and_near_copies_are_left_out_and_counted(tmp_path: Path) -> None:
    whole = " ".join(f"word{n}" for n in range(40))
    near = whole.replace("word7 ", "other ")
    files = {
        "a.txt": whole,
        "b.txt": whole,
        "c.txt": near,
        "d.txt": "Too short.",
        "e.txt": " \n",
        "f.png": b"\xff",
        "README": "x",
    }
    rows, summary = corpus_of(tmp_path, files)
    assert [row["_id"] for row in rows] == ["a.txt#1"]
    assert summary["left_out"] == {"copy": 1, "near copy": 1, "too short": 1, "file without text": 1}
    assert (summary["files"], summary["files_of_other_kinds"]) == (5, {".png": 1, "none": 1})
    assert summary["words"] == {"least": 40, "median": 40, "most": 40}
    assert {row["id"]: row.get("like") for row in left_out(tmp_path)} == {
        "b.txt#1": "a.txt#1", "c.txt#1": "a.txt#1", "d.txt#1": None, "e.txt": None,
    }  # fmt: skip
    assert json.loads((tmp_path / "own" / "corpus_report.json").read_text(encoding="utf-8")) == summary
    assert len(corpus_of(tmp_path, {}, near_copy=None)[0]) == 2  # exact copies never stay
    assert len(corpus_of(tmp_path, {}, near_copy=None, min_words=0)[0]) == 3


def test_names_of_files_that_are_no_utf_8_are_written_by_their_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 1.txt")
    try:
        rows, summary = corpus_of(tmp_path, {name: ("café " * 30).encode("cp1252")})
    except OSError:
        pytest.skip("a file system of UTF-8 names alone")
    assert [(row["_id"], row["title"]) for row in rows] == [("caf%E9%201.txt#1", "caf\ufffd 1")]
    assert summary["encodings"] == {"caf\ufffd 1.txt": "cp1252"}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "shift_jis", "cp1251"])
def test_other_encodings_are_read_and_named(tmp_path: Path, encoding: str) -> None:
    texts = {"shift_jis": JAPANESE[:200], "cp1251": "Пчёлы летают над полями клевера и собирают нектар. " * 9}
    texts["utf-16-le"] = "Bees fly over woods, fields and gardens, where they look for flowers. " * 9  # all of it UTF-8 too
    text = texts.get(encoding, "Die Bienen fliegen über Wälder, Äcker und Gärten, wo sie Blüten für Honig suchen. " * 9)
    rows, summary = corpus_of(tmp_path, {"a.txt": text.encode(encoding), "b.txt": sentence(30)}, near_copy=None)
    found = "".join(row["text"] for row in rows if row["_id"].startswith("a"))
    assert found.replace(" ", "") in text.replace(" ", "")  # an exact copy of a part stands once
    assert list(summary["encodings"]) == ["a.txt"]


def test_a_named_encoding_counts_where_a_file_is_not_utf_8(tmp_path: Path) -> None:
    files = {"a.txt": ("café " * 30).encode("cp1252"), "b.txt": "thé " * 30, "c.txt": b"\xff\x81" * 60}
    rows, summary = corpus_of(tmp_path, files, encoding="cp1252")
    assert {row["text"][:4].strip() for row in rows} == {"café", "thé"}
    assert summary["encodings"] == {"a.txt": "cp1252"} and summary["left_out"] == {"unreadable file": 1}
    assert "encoding=" in left_out(tmp_path)[0]["reason"]


def test_nul_signs_are_counted_by_file(tmp_path: Path) -> None:
    rows, summary = corpus_of(tmp_path, {"a.txt": "héllo wörld \0 naïve " * 30, "b.txt": "thé " * 30})
    assert rows[0]["text"].startswith("héllo wörld naïve") and summary["nuls"] == {"a.txt": 30}
    assert summary["encodings"] == {}


def test_reading_and_the_search_for_copies_have_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    @contextmanager
    def watched(doing: str, total: int, unit: str) -> Iterator[bars.Bar]:
        with bars.bar(doing, total, unit) as shown:
            yield shown
        said.append(f"{doing}: {shown.line()}")

    monkeypatch.setattr(text_files, "bar", watched)
    corpus_of(tmp_path, {"a.txt": sentence(30), "b.txt": sentence(200)})
    assert said == ["read files: 2 of 2 files", "look for copies: 3 of 3 passages"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"words": 0}, "words=0: at least 1 word"),
        ({"min_words": 61}, "min_words=61: from 0 to half of words=120"),
        ({"near_copy": 0}, "near_copy=0: a share above 0"),
        ({"encoding": "latin-99"}, "encoding='latin-99' is not known"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part.replace("(", r"\(")):
        corpus_of(tmp_path, {"a.txt": sentence(30)}, **options)


def test_a_folder_without_text_says_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text in any .txt or .md .*; 1 too short"):
        corpus_of(tmp_path, {"a.txt": "Few words."})


def test_the_command_says_what_it_left_out_and_what_comes_next(
    tmp_path: Path, command: Callable[..., Any], fails: Callable[..., str]
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(sentence(30).encode() + b" caf\xe9")
    (tmp_path / "texts" / "b.txt").write_text("Few.\0", encoding="utf-8")
    done = command("uar.corpus", "texts=texts", "out='my corpus'")
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0 and "1 passages of 2 files" in said and "Left out: 1 too short" in said
    assert "taken out of 1 files: b.txt (1)" in said
    assert "1 files are not UTF-8" in said and "a.txt (cp12" in said
    assert "Next: python -m uar.annotate dataset=local 'dataset.path='\"'\"'my corpus'\"'\"'' questions=generate" in said
    assert "no such folder" in fails("uar.corpus", "texts=nowhere", "out=own")


def test_the_first_of_similar_sets_is_named() -> None:
    near = NearCopies(0.8)
    sets = near.ordered([["a", "b", "c", "d", "e"], ["v", "w"], ["a", "b", "c", "d"], ["a", "b", "x", "y"]])
    found = []
    for words in sets:
        found.append(near.like(words))
        near.add(words)
    assert found == [None, None, 0, None]
