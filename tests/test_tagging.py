"""Labels of a list, in two steps: those that a group's call selects are looked at alone, as the recipe has it."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from annotate_runs import QUIET, labels
from llm_server import LLMServer, Messages
from scripted import POOL, Scripted, graded, run, shown_passages
from test_docs import COMMAND, ROOT, code_of

from uar.annotation.annotate_run import annotate
from uar.annotation.annotators import Cascade, Pointwise, RelSel, Sliding, UtilSel
from uar.errors import UserError
from uar.launch.entry import composed
from uar.llm.record import Choose, Outcome, Reply, Request

PAGE = ROOT / "docs" / "recipes" / "tagging.md"
SHOWS = {"a": {"dog", "cat"}, "b": {"bus"}}  # what the first step selects
PICTURES = {"a": b"\xff\xd8\xff picture a", "b": b"\x89PNG\r\n\x1a\n picture b"}


def picture_of(messages: Messages) -> str:
    """By the kind of image that is shown."""
    return "a" if "data:image/jpeg;base64," in json.dumps(messages) else "b"


def text_of(messages: Messages) -> str:
    """Of the turns of the user, parts joined."""
    contents: list[Any] = [turn["content"] for turn in messages if turn["role"] == "user"]
    return "\n".join(text if isinstance(text, str) else text[-1]["text"] for text in contents)


def selects(messages: Messages) -> str:
    shown = re.findall(r"^\[(\d+)\] (\w+)", text_of(messages), re.MULTILINE)
    return f"My selection:[{','.join(f'[{n}]' for n, label in shown if label in SHOWS[picture_of(messages)])}]"


def grades(messages: Messages) -> dict[str, float]:
    right = "Passage: cat" not in text_of(messages)  # which is a dog after all
    return {"2": -0.01, "1": -5.0, "0": -6.0} if right else {"0": -0.01, "1": -5.0, "2": -6.0}


def test_the_recipe_labels_pictures_in_two_steps(tmp_path: Path, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name, content in PICTURES.items():
        (tmp_path / "pictures" / f"{name}.jpg").write_bytes(content)
    recipe = code_of("recipes/tagging.md")
    server.answer, server.choose = selects, grades
    (command,) = (c for c in COMMAND.findall(PAGE.read_text(encoding="utf-8")) if "dataset.path=TAGS" in c)
    options = [o for o in shlex.split(command)[2:] if not o.startswith("llm.base_urls")]
    given = [*options, f"llm.base_urls=[{server.url}]", QUIET]
    spent = annotate(composed("annotate", *given), tmp_path / "run")
    assert {stage: counts["calls"] for stage, counts in spent["stages"].items()} == {"relsel": 4, "then_pointwise": 3}
    found = labels(tmp_path / "run")
    assert len(found) == 20 and {r["query_id"]: r["doc_id"] for r in found if r["label"]} == {"a": "dog", "b": "bus"}
    assert all("labels with their definitions" in body["messages"][0]["content"] for *_, body in server.seen[:1])
    assert annotate(composed("annotate", *given), tmp_path / "again")["calls"] == 0
    texts = recipe["LABELS"] | {"cat": "A cat of any kind."}
    recipe["write_lines"](tmp_path / "TAGS" / "corpus.jsonl", [{"_id": n, "title": n, "text": t} for n, t in texts.items()])
    again = annotate(composed("annotate", *given), tmp_path / "changed")
    assert again["stages"]["relsel"]["calls"] == 2 and again["stages"]["then_pointwise"]["calls"] == 1


GRADE = Pointwise(template="pointwise")


def test_what_no_call_selects_is_not_looked_at(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply | str:
        if isinstance(request, Choose):
            return Reply.of_choices({"0": -0.1, "1": -9.0, "2": -9.0, "3": -4.0 if POOL["d1"] in str(request) else -0.05})
        honey = [n for n, text in shown_passages(request.messages).items() if "oney" in text]
        return f"My selection:[{','.join(f'[{n}]' for n in honey)}]"

    engine = Scripted(answer)
    cascade = Cascade(RelSel(template="relsel", group=2), GRADE, doubt="selected", models=1)
    judged, _ = run(tmp_path, cascade, engine)
    groups = [set(shown_passages(r.messages).values()) for r in engine.asked if not isinstance(r, Choose)]
    assert sorted(map(sorted, groups)) == sorted([sorted(POOL[d] for d in pair) for pair in (("d1", "d2"), ("d3", "d4"))])
    assert sum(isinstance(r, Choose) for r in engine.asked) == 2  # d1 and d4 of four
    assert graded(judged) == [("d4", 1, 1), ("d1", 0, 0), ("d2", 0, 0), ("d3", 0, 0)]
    useful = Cascade(RelSel(template="relsel", group=2), UtilSel(template="utilsel"), doubt="selected", models=1)
    engine.asked.clear()
    run(tmp_path / "lists", useful, engine)
    assert {len(shown_passages(r.messages)) for r in engine.asked} == {2}  # two groups, then d1 and d4, of four


def test_a_group_that_fails_leaves_the_question_without_labels(tmp_path: Path) -> None:
    engine = Scripted(lambda r: Reply("", Outcome.REFUSED) if POOL["d3"] in str(r) else "My selection:[[1]]")
    judged, chains = run(tmp_path, RelSel(template="relsel", group=2), engine, max_failure_rate=1)
    assert judged == {} and chains.failed == ["q1"] and len(engine.asked) == 2


def test_an_impossible_group_is_one_line() -> None:
    with pytest.raises(UserError, match="annotator.group=0: at least 1 passage a call"):
        RelSel(template="relsel", group=0)
    with pytest.raises(UserError, match="annotator.group=5: layout=shared_prefix shows the whole pool"):
        UtilSel(template="utilsel", group=5, layout="shared_prefix")
    with pytest.raises(UserError, match="annotator.group=5: nothing is selected here"):
        Sliding(template="listwise", group=5)
    with pytest.raises(UserError, match="annotator.max_selected=2: nothing is selected here"):
        Sliding(template="listwise", max_selected=2)
