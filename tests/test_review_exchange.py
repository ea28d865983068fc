"""A review as files of other tools, and what comes back from them."""

import csv
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ok, write_jsonl
from review_page import labelling, rows

from uar.errors import DataError
from uar.reviewing.exchange.taking_back import take_back, write_for
from uar.reviewing.label_database import Item
from uar.reviewing.labelling import Labelling
from uar.reviewing.manner import OF_FILES, Manner

COMPARED = ("query_id", "doc_id", "who", "grade", "start", "end", "words", "suggestion_shown", "seconds", "confidence", "time")


def label(item: int, place: int, grade: int, **more: Any) -> dict[str, Any]:
    return {"id": f"event-{item}-{place}", "kind": "label", "item": item, "place": place, "grade": grade, "time": 5.5, **more}


@pytest.fixture
def work(tmp_path: Path, folder: Path) -> Labelling:
    """Two of three questions, of which `ann` judged one and marked words after a character beyond the BMP."""
    corpus = (folder / "corpus.jsonl").read_text(encoding="utf-8")
    (folder / "corpus.jsonl").write_text(corpus.replace("The heart", "=\U0001f600 The heart"), encoding="utf-8")
    items = [Item(q, ["d1", "d2"], {"d1": "t1", "d2": "t2"}, {"d1": (1, None)}, False) for q in ("q1", "q2")]
    found = labelling(tmp_path / "r", folder, items, suggestion="shown")
    found.save("ann", [label(0, 0, 1, start=3, end=12, seconds=2.5, confidence=1.0), label(0, 1, 0, confidence=0.0)])
    return found


def told(of: Labelling) -> list[dict[str, Any]]:
    return [{name: row[name] for name in COMPARED} for row in rows(of)]


@pytest.mark.parametrize("tool", ["csv", "label_studio", "argilla"])
def test_what_goes_out_comes_back(tool: str, work: Labelling, tmp_path: Path, folder: Path) -> None:
    path = write_for(tool, work, tmp_path / "out")
    assert take_back(work, path) == 0, "it is kept already"
    empty = labelling(tmp_path / "empty", folder, [], suggestion="shown")
    items = [Item(q, ["d1", "d2"], {"d1": "t1", "d2": "t2"}, {"d1": (1, None)}, False) for q in ("q1", "q2")]
    with empty.database.change():
        for table in ("items", "passages"):
            empty.database.write(f"delete from {table} where item >= ?", [(0,)])
    empty.database.add(items)
    assert take_back(empty, path) == 2 and take_back(empty, path) == 0
    back = told(empty)
    assert back == told(work) and back[0]["words"] == "The heart"[:9]
    assert empty.progress("ann")["mine"] == 1, "a question whose passages all have a label is done"


@pytest.mark.parametrize("tool", ["csv", "label_studio", "argilla"])
def test_characters_of_any_kind_come_back(tool: str, tmp_path: Path, folder: Path) -> None:
    ids = ["'=d1", '"d,2";', "-\u200bé", "+4"]
    texts = ['say "a", b;\tc', "one\r\ntwo\n\nthree\u2028four\x85", "=1+1", "long " * 30_000]
    write_jsonl(folder / "corpus.jsonl", [{"_id": i, "title": "", "text": t} for i, t in zip(ids, texts, strict=True)])
    (folder / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\nq1\t{ids[0]}\t1\nq2\t{ids[1]}\t1\n")
    both = [labelling(tmp_path / name, folder) for name in ("one", "other")]
    grades = [label(0, place, place % 2, start=1, end=4) for place in range(4)]
    for who in ("'-ann, b;", "=Zoë"):
        both[0].save(who, [{**event, "id": event["id"] + who} for event in grades])
    assert take_back(both[1], write_for(tool, both[0], tmp_path)) == 8
    assert sorted(told(both[1]), key=str) == sorted(told(both[0]), key=str)


def test_out_is_where_a_review_is_kept_also_in_a_sweep(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, folder: Path
) -> None:
    ok(command("uar.review", "-m", "export=csv", "dataset=local", f"dataset.path={folder}", "seed=0,1", "out=kept/${seed}"))
    assert {p.parent.name for p in (tmp_path / "kept").glob("*/review.sqlite")} == {"0", "1"}
    assert not list(tmp_path.glob("multirun/**/*.sqlite"))


def test_a_sheet_that_somebody_filled_out_is_taken(work: Labelling, tmp_path: Path) -> None:
    text = write_for("csv", work, tmp_path).read_text(encoding="utf-8-sig")
    assert "\"'=\U0001f600" in text or ",'=\U0001f600" in text, "no spreadsheet computes it"
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("query_id;doc_id;who;grade\nq2;d1;bob;1\nq2;d2;bob;\nother;d1;bob;1\n", encoding="utf-8")
    assert take_back(work, sheet) == 1
    bob = told(work)[-1]
    assert [bob[name] for name in COMPARED[:-3]] == ["q2", "d1", "bob", 1, None, None, None, True]


def test_an_export_of_label_studio_names_people_by_their_accounts(work: Labelling, tmp_path: Path) -> None:
    tasks = json.loads(write_for("label_studio", work, tmp_path).read_text())
    assert tasks[0]["predictions"][0]["result"][0]["value"] == {"choices": ["1"]} and tasks[1]["predictions"] == []
    choice = {"type": "choices", "from_name": "grade", "to_name": "passage", "value": {"choices": ["0"]}}
    done = {"completed_by": {"id": 3, "email": "eve@x.org"}, "result": [choice], "created_at": "2026-03-09T22:16:08.728353Z"}
    tasks[2]["annotations"] = [done | {"lead_time": 4.2}, done | {"was_cancelled": True}, done | {"result": []}]
    (tmp_path / "back.json").write_text(json.dumps(tasks))
    assert take_back(work, tmp_path / "back.json") == 1
    eve = rows(work)[-1]
    assert (eve["who"], eve["grade"], eve["seconds"], eve["time"].year) == ("eve@x.org", 0, 4.2, 2026)
    assert eve["suggestion_shown"] is True, "the task had a prediction"


def test_what_a_person_corrected_last_in_label_studio_counts(work: Labelling, tmp_path: Path) -> None:
    tasks = json.loads(write_for("label_studio", work, tmp_path).read_text())

    def done(grade: str, **times: str) -> dict:
        choice = {"type": "choices", "from_name": "grade", "to_name": "passage", "value": {"choices": [grade]}}
        return {"completed_by": 3, "result": [choice], **{f"{name}_at": f"2026-03-09T{at}Z" for name, at in times.items()}}

    corrected = done("1", created="10:00:00", updated="12:00:00")
    tasks[2]["annotations"] = [corrected, done("0", created="11:00:00", updated="11:00:00")]
    (tmp_path / "back.json").write_text(json.dumps(tasks))
    assert take_back(work, tmp_path / "back.json") == 1
    assert (rows(work)[-1]["grade"], rows(work)[-1]["time"].hour) == (1, 12)


def test_marks_that_changed_in_label_studio_are_taken_with_the_grade_as_it_was(
    work: Labelling, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_for("label_studio", work, tmp_path)
    tasks = json.loads(path.read_text())
    results = tasks[0]["annotations"][0]["result"]
    for new, start, words in ((1, 5, "e heart"), (0, 5, "e heart"), (1, None, None)):
        if start is None:
            results.pop()
        else:
            results[1]["value"]["start"] = start + 1  # in UTF-16 units, of which the first sign takes two
        path.write_text(json.dumps(tasks))
        assert take_back(work, path) == new
        now = told(work)[0]
        assert (now["grade"], now["start"], now["words"], now["confidence"]) == (1, start, words, 1.0)
    results += [{"type": "labels", "value": {"start": start, "end": 9}} for start in (4, 6, 8)]
    path.write_text(json.dumps(tasks))
    assert take_back(work, path) == 1 and (told(work)[0]["start"], told(work)[0]["end"]) == (3, 8)
    assert "2 marks are left out, since a judgement has one" in caplog.text


@pytest.mark.parametrize("tool", ["csv", "label_studio", "argilla"])
@pytest.mark.parametrize("by_page", [True, False])
def test_who_has_seen_a_suggestion_has_seen_it_for_good(tool: str, by_page: bool, tmp_path: Path, folder: Path) -> None:
    """`ann` saw suggestions on the page where files show none, or the other way round; also into a review that shows none."""
    items = [Item(q, ["d1"], {"d1": "t1"}, {"d1": (1, None)}, False) for q in ("q1", "q2")]
    seed = next(s for s in range(99) if shows(s) == (by_page, not by_page))
    work = labelling(tmp_path / "r", folder, items, suggestion="random", seed=seed)
    work.save("ann", [label(0, 0, 1)])
    path = write_for(tool, work, tmp_path / "out")
    hidden = labelling(tmp_path / "h", folder, items, suggestion="hidden")
    assert take_back(hidden, path) == 1 and told(hidden)[0]["suggestion_shown"] == by_page
    path.write_text(CHANGED[tool](path.read_text(encoding="utf-8-sig")), encoding="utf-8")
    assert take_back(work, path) == 1
    seen = by_page or tool != "csv"  # the tool shows it beside what is changed, a sheet does not
    assert (told(work)[0]["grade"], told(work)[0]["suggestion_shown"]) == (0, seen)
    work.manner = replace(work.manner, suggestion="hidden")
    work.save("ann", [label(0, 0, 1) | {"id": "event-again", "shown": False}])
    assert told(work)[0]["suggestion_shown"] == seen


def shows(seed: int) -> tuple[bool, bool]:
    """To `ann`, and in files."""
    manner = Manner(((0, "no"), (1, "yes")), 1, "list", "random", 1, seed, "", "")
    return manner.shows("q1", "ann"), manner.shows("q1", OF_FILES)


CHANGED = {
    "csv": lambda text: text.replace(",ann,1,", ",ann,0,").replace(",5.5,", ",6.5,"),
    "argilla": lambda text: text.replace('"value": "1",\n          "user_id": "ann"', '"value": "0", "user_id": "ann"'),
    "label_studio": lambda text: re.sub(r'("id": "uar-0".*?)"1"', r'\1"0"', text, flags=re.S).replace("00:00:05", "00:00:06"),
}


@pytest.mark.parametrize(("suggestion", "seen"), [("shown", True), ("hidden", False)])
def test_a_sheet_that_does_not_say_what_was_shown_is_taken_as_the_review_writes_it(
    suggestion: str, seen: bool, tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [Item("q1", ["d1", "d2"], {"d1": "t1", "d2": "t2"}, {"d1": (1, None)}, False)]
    work = labelling(tmp_path / "r", folder, items, suggestion=suggestion)
    (tmp_path / "sheet.csv").write_text(HEAD + "q1,d1,bob,1\nq1,d2,bob,0\n", encoding="utf-8")
    assert take_back(work, tmp_path / "sheet.csv") == 2
    assert [row["suggestion_shown"] for row in told(work)] == [seen, False], "nothing was said of d2"
    assert f"2 judgements do not say whether a suggestion was seen (suggestion_shown); {int(seen)} count as" in caplog.text


def test_a_grade_of_another_scale_stands_in_no_sheet_so_that_nobody_saw_it_there(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [Item("q1", ["d1", "d2"], {"d1": "t1", "d2": "t2"}, {"d1": (1, None), "d2": (1, 2)}, False)]
    scale = ((0, "no"), (1, "related"), (2, "yes"))
    work = labelling(tmp_path / "r", folder, items, suggestion="shown", scale=scale)
    with write_for("csv", work, tmp_path).open(newline="", encoding="utf-8-sig") as file:
        assert [row["suggestion"] for row in csv.DictReader(file)] == ["", "2"]
    (tmp_path / "sheet.csv").write_text(HEAD + "q1,d1,bob,1\nq1,d2,bob,0\nq1,d2,eve,0\n", encoding="utf-8")
    assert take_back(work, tmp_path / "sheet.csv") == 3
    assert [row["suggestion_shown"] for row in told(work)] == [False, True, True]
    assert "3 judgements do not say whether a suggestion was seen (suggestion_shown); 2 count as" in caplog.text


def sheet(place: Path, *grades: int) -> Path:
    """Of `bob`, without times; the same passage for each grade."""
    place.write_text(HEAD + "".join(f"q2,d1,bob,{grade}\n" for grade in grades), encoding="utf-8")
    return place


def test_what_somebody_changes_in_a_sheet_is_taken_each_time(work: Labelling, tmp_path: Path) -> None:
    for grade in (1, 0, 1):  # changed, and changed back
        assert take_back(work, sheet(tmp_path / "sheet.csv", grade)) == 1
        assert told(work)[-1]["grade"] == grade
    work.save("bob", [label(1, 0, 0)])
    assert take_back(work, sheet(tmp_path / "sheet.csv", 1)) == 0, "the page was later than the same sheet"
    assert told(work)[-1]["grade"] == 0


def test_times_of_a_sheet_are_as_fine_as_it_writes_them(work: Labelling, tmp_path: Path) -> None:
    work.clock = lambda: 1_700_000_000.1234
    take_back(work, sheet(tmp_path / "sheet.csv", 1))
    out = write_for("csv", work, tmp_path)
    out.write_bytes(out.read_bytes().replace(b"bob,1,", b"bob,0,"))  # its time is left as it is
    assert take_back(work, out) == 1 and told(work)[-1]["grade"] == 0


def test_what_a_spreadsheet_changes_is_taken_or_counted(
    work: Labelling, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work.clock = lambda: 1_700_000_000.1234
    work.save("ann", [label(1, 0, 1, start=0, end=4, confidence=1.0) | {"time": 1_699_999_999.75}])
    out = write_for("csv", work, tmp_path)
    whole = out.read_text(encoding="utf-8-sig")

    def back(text: str) -> tuple[int, dict[str, Any]]:
        out.write_text(text, encoding="utf-8")
        return take_back(work, out), told(work)[-1]

    of_q2 = next(line for line in whole.splitlines() if ",1699999999.75," in line)
    shortened = whole.replace(of_q2, of_q2.replace(",ann,1,", ",ann,0,").replace("1699999999.75", "1699999999"))
    assert back(shortened)[0] == 1 and told(work)[-1]["grade"] == 0, "the row says which judgement it changes"
    assert back(shortened)[0] == 0
    unsure = shortened.replace(",ann,0,1.0,0,4,", ",ann,0,0.0,0,4,")
    assert (back(unsure)[0], told(work)[-1]["confidence"]) == (1, 0.0)
    number, row = back(unsure.replace(",ann,0,0.0,0,4,", ",ann,0,0.0,,,"))
    assert (number, row["words"], row["grade"]) == (1, None, 0), "a mark is taken away"
    assert back(unsure.replace(",ann,0,0.0,0,4,", ",ann,,0.0,0,4,"))[0] == 0
    assert "the grades of 1 judgements were cleared; they stay" in caplog.text


def test_people_whom_a_tool_names_by_its_ids_are_told_or_asked_for(work: Labelling, tmp_path: Path) -> None:
    path, before = write_for("argilla", work, tmp_path), told(work)
    path.write_text(path.read_text().replace('"user_id": "ann"', '"user_id": "3f-7"'))
    with pytest.raises(DataError, match=r"of ann went out, and those that came back are of 3f-7; .* 'names=\{3f-7: NAME\}'"):
        take_back(work, path)
    assert take_back(work, path, {"3f-7": "ann"}) == 0 and told(work) == before
    assert take_back(work, path, {"3f-7": "bob"}) == 2, "somebody else, who happens to agree"
    assert {row["suggestion_shown"] for row in told(work) if row["who"] == "bob" and row["doc_id"] == "d1"} == {True}


def test_of_two_judgements_of_a_person_the_later_row_counts(
    work: Labelling, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for new in (1, 0):
        assert take_back(work, sheet(tmp_path / "sheet.csv", 0, 1)) == new
        assert told(work)[-1]["grade"] == 1
    assert "1 judgements are left out, since the same person judges the passage again in the file" in caplog.text


HEAD = "query_id,doc_id,who,grade\n"
CHOICE = {"type": "choices", "value": {"choices": ["1"]}}
SLOW = {
    "data": {"query_id": "q1", "doc_id": "d1"},
    "annotations": [{"completed_by": 3, "result": [CHOICE], "lead_time": "long"}],
}
MORE = "query_id,doc_id,who,grade,time,seconds,start,end\n"
FAULTS = {
    "absent.csv": (None, "no such file"),
    "empty.csv": (HEAD, "nothing is judged in it"),
    "empty.json": ("[]", "nothing is judged in it"),
    "other.csv": (HEAD + "x,y,ann,1\n", "none of its 1 judgements is of a passage of this review"),
    "grade.csv": (HEAD + "q1,d1,ann,9\n", r"grade.csv:2: grade is 9; 0 to 1 are allowed"),
    "word.csv": (HEAD + "q1,d1,ann,yes\n", r"word.csv:2: grade is 'yes'; a number is needed"),
    "nobody.csv": (HEAD + "q1,d1,,1\n", r"nobody.csv:2: who is ''; a name of 1 to 60"),
    "infinite.csv": (HEAD + "q1,d1,ann,inf\n", r"infinite.csv:2: grade is 'inf'; a whole number is needed"),
    "ms.csv": (MORE + "q1,d1,ann,1,1700000000000,,,\n", r"ms.csv:2: time is 1700000000000.0; seconds since 1970"),
    "never.csv": (MORE + "q1,d1,ann,1,inf,,,\n", r"never.csv:2: time is inf; seconds since 1970"),
    "slow.csv": (MORE + "q1,d1,ann,1,,nan,,\n", r"slow.csv:2: seconds is nan; seconds from 0 on are needed"),
    "mark.csv": (MORE + "q1,d1,ann,1,,,3,99999999999\n", r"mark.csv:2: start and end are 3 and 99999999999"),
    "half.csv": (MORE + "q1,d1,ann,1,,,3,\n", r"half.csv:2: start and end are 3 and None; two places"),
    "columns.csv": ("a,b\n1,2\n", "query_id, doc_id, who, grade are needed too"),
    "broken.json": ("[{", "no JSON"),
    "slow.json": (json.dumps([SLOW]), r"slow.json:1: seconds is 'long'; seconds from 0 on are needed"),
    "strange.json": ('[{"x": 1}]', "neither tasks of Label Studio nor records of Argilla"),
    "half.json": ('[{"data": {}, "annotations": [{"result": [{"type": "choices"}]}]}]', "not as the tool writes it"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_file_is_one_line_and_changes_nothing(name: str, work: Labelling, tmp_path: Path) -> None:
    content, why = FAULTS[name]
    before = told(work)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(Exception, match=why) as caught:
        take_back(work, tmp_path / name)
    assert isinstance(caught.value, DataError)
    assert told(work) == before
    with pytest.raises(DataError, match="no such tool; allowed: label_studio, argilla, csv"):
        write_for("excel", work, tmp_path)
