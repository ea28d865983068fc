"""Guidelines: a text in the system turn, which tells calls apart, and whose changes are reported."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from annotate_runs import asking
from llm_server import LLMServer
from scripted import Scripted, replies, run

from uar.annotation.annotate_run import annotate
from uar.annotation.annotators import Ensemble, Pointwise, RelSel, Setwise
from uar.errors import DataError
from uar.launch.entry import composed
from uar.llm.prompts.template import ChatPrompt, Turn

TEXT = "A passage is useful where it {{ names }} the answer."
SELECTS = replies(relsel="My selection:[[1]]")


@pytest.fixture
def guideline(tmp_path: Path) -> Path:
    path = tmp_path / "guideline.md"
    path.write_text(f"\ufeff\n{TEXT}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "annotator",
    [
        RelSel(template="relsel"),
        RelSel(template="relsel", layout="shared_prefix"),
        Setwise(template="setwise", reasoning=True),
    ],
)
def test_the_system_turn_is_the_guideline_as_it_stands_in_the_file(
    tmp_path: Path, guideline: Path, annotator: RelSel | Setwise
) -> None:
    plain, guided = Scripted(lambda r: "[A]"), Scripted(lambda r: "[A]")
    run(tmp_path / "a", annotator, plain, max_failure_rate=1)
    run(tmp_path / "a", replace(annotator, guideline=str(guideline)), guided, max_failure_rate=1)
    assert guided.asked[0].messages[0] == ("system", TEXT)
    assert guided.asked[0].messages[1:] == plain.asked[0].messages
    assert guided.asked[0].key("m") != plain.asked[0].key("m")


def test_a_prompt_with_a_system_turn_keeps_it_first() -> None:
    prompt = ChatPrompt("own", "h", (Turn("system", "You judge."), Turn("user", "{{ query }}"))).with_guideline(TEXT)
    assert prompt.render(query="why") == (("system", f"You judge.\n{TEXT}"), ("user", "why"))
    assert prompt.with_guideline("") is prompt


def test_the_text_tells_calls_and_annotations_apart_and_the_name_does_not(tmp_path: Path, guideline: Path) -> None:
    annotator = RelSel(template="relsel", guideline=str(guideline))
    run(tmp_path / "store", annotator, Scripted(SELECTS))
    other = guideline.rename(tmp_path / "renamed.md")
    renamed, again = replace(annotator, guideline=str(other)), Scripted(SELECTS)
    run(tmp_path / "store", renamed, again)
    assert again.asked == [] and renamed.asks() == annotator.asks() != RelSel(template="relsel").asks()
    other.write_text("Another text.")
    changed = Ensemble(replace(annotator, guideline=str(other)), samples=2)
    assert changed.asks()["member"]["guideline"] != annotator.asks()["guideline"]
    run(tmp_path / "store", replace(annotator, guideline=str(other)), again)
    assert len(again.asked) == 1


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file"), (b" \n", "an empty file"), (b"\xff\xfe\x00", "not UTF-8")]
)
def test_a_guideline_that_cannot_be_shown_is_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "guideline.md"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: annotator.guideline: {said}.*; (give|write|save)") as error:
        Pointwise(template="pointwise", guideline=str(path))
    assert "\n" not in str(error.value)


def test_a_run_keeps_its_guideline_and_reports_a_changed_one(
    guideline: Path, tmp_path: Path, folder: Path, server: LLMServer, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = ["dataset=local", f"dataset.path={folder}", "annotator=relsel", f"annotator.guideline={guideline}", "logger=none"]
    every: Callable[[Path], dict] = lambda place: annotate(composed("annotate", *given, *asking(server)), place)  # noqa: E731
    every(Path("first"))
    assert Path("first/guideline.txt").read_text() == f"{TEXT}\n" and "guideline" not in caplog.text
    guideline.write_text("Another text.")
    assert every(Path("second"))["calls"] == 3
    assert "The guideline differs from that of first: its replies are kept and answer none of these calls" in caplog.text
    caplog.clear()

    def answer(messages: list[dict[str, str]]) -> str:
        guideline.write_text("A third text.")
        return "My selection:[]"

    guideline.write_text("Yet another.")
    server.answer = answer
    every(Path("third"))
    assert "was changed while the run went on: all labels are by the text that it began with" in caplog.text
    assert {m["content"] for *_, body in server.seen[-3:] for m in body["messages"][:1]} == {"Yet another."}
