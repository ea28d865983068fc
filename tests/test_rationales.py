"""Grades with a sentence that says why, which is kept."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from annotate_runs import QUIET, asking
from llm_server import LLMServer, Messages
from scripted import Scripted, run

from uar.annotation.annotate_run import annotate
from uar.annotation.annotators import Pointwise
from uar.annotation.parsing import parse_reasoned_grade
from uar.errors import UserError
from uar.launch.entry import composed
from uar.llm.record import Generate, Outcome, Reply

EXPLAINED = Pointwise(template="pointwise_reason", rationale=True)


@pytest.mark.parametrize(
    ("text", "outcome", "grade", "reason"),
    [
        ("2\nIt names the year 1850.", "ok", 2, "It names the year 1850."),
        ("Grade: 3 - it says\n  so.", "ok", 3, "it says so."),
        ("**1**\n\nOff the point.", "ok", 1, "Off the point."),
        ("0", "ok", 0, ""),
        ("3. It answers.", "ok", 3, "It answers."),
        ("7\nBest.", "out_of_range", None, ""),
        ("2.5\nBetween.", "unparsable", None, ""),
        ("2/3\nNearly.", "unparsable", None, ""),
        ("-1\nBad.", "unparsable", None, ""),
        ("It names the year, so 2.", "unparsable", None, ""),
        ("", "empty", None, ""),
        ("1 or 2\nBetween.", "unparsable", None, ""),
        ("1-2\nBetween.", "unparsable", None, ""),
        ("2 to 3", "unparsable", None, ""),
        ("<2\nLittle.", "unparsable", None, ""),
        ("2?\nMaybe.", "unparsable", None, ""),
        ("2\nIt answers. Final grade: 3", "unparsable", None, ""),
        ("2, 1850 is named.", "ok", 2, "1850 is named."),
    ],
)
def test_the_grade_stands_first_and_the_reason_after_it(text: str, outcome: str, grade: int | None, reason: str):
    assert parse_reasoned_grade(Reply(text), range(4)) == (Outcome(outcome), grade, reason)
    assert parse_reasoned_grade(Reply(text, Outcome.TRUNCATED), range(4)) == (Outcome.TRUNCATED, None, "")


def test_judgements_have_reasons_and_a_failed_one_is_none(tmp_path: Path):
    said = {"honey from": "3\nIt says honey.", "hives": "1\nOnly hives.", "violin": "grade unknown", "for years": "2"}
    engine = Scripted(lambda request: next(v for k, v in said.items() if k in request.messages[-1][1]))
    judged, _ = run(tmp_path, EXPLAINED, engine, max_failure_rate=1.0)
    assert [(j.doc_id, j.label, j.grade, j.score, j.reason) for j in judged["q1"]] == [
        ("d1", 1, 3, None, "It says honey."), ("d4", 1, 2, None, ""), ("d2", 0, 1, None, "Only hives."),
    ]  # fmt: skip
    assert all(isinstance(r, Generate) and r.max_tokens == 96 for r in engine.asked)
    with pytest.raises(UserError, match="examples have grades and no reasons"):
        Pointwise(template="pointwise_reason", rationale=True, examples="knn", examples_from="mini:train")


def test_a_run_keeps_them(server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def answer(messages: Messages) -> str:
        return f"{len(messages[-1]['content']) % 4}\nBecause it is so long."

    server.answer = answer
    words = ["annotator=rationale", "limit=3", *asking(server), QUIET]
    told: Callable[[str], list[dict]] = lambda name: [  # noqa: E731
        json.loads(line) for line in (tmp_path / name / "rationales.jsonl").read_text().splitlines()
    ]
    spent = annotate(composed("annotate", *words), tmp_path / "run")
    rows = told("run")
    assert len(rows) == spent["pairs"] == 24 and set(rows[0]) == {"query_id", "doc_id", "grade", "reason"}
    assert {row["reason"] for row in rows} == {"Because it is so long."}
    again = annotate(composed("annotate", *words), tmp_path / "again")
    assert again["calls"] == 0 and told("again") == rows
