"""Tasks and annotations as Label Studio takes and writes them (https://labelstud.io/guide/task_format): a task a passage."""

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from uar.errors import DataError
from uar.reviewing.exchange.kept_facts import Names, kept_facts, person_of, with_facts
from uar.reviewing.exchange.review_pairs import Returned, ReviewPair
from uar.reviewing.manner import Manner
from uar.storage.files import read_json, write_json, write_text

log = logging.getLogger(__name__)
FILE, CONFIG, MARK = "label_studio.json", "label_studio.xml", "answers it here"
OURS = "uar-"  # begins the id of a grade that was given here; its place among the judgements follows
VIEW = """<View>
  <Header value="$question"/>
  <Header value="$title" size="5"/>
  <Labels name="answer" toName="passage"><Label value="{mark}"/></Labels>
  <Text name="passage" value="$text"/>
  <Choices name="grade" toName="passage" choice="single" required="true">
{choices}
  </Choices>
</View>
"""


def write(folder: Path, pairs: Iterable[ReviewPair], manner: Manner) -> Path:
    """`label_studio.json`, and `label_studio.xml`, the labelling interface of the project that imports it."""
    choices = "\n".join(f'    <Choice value="{grade}" hint={quoteattr(meaning)}/>' for grade, meaning in manner.scale)
    write_text(folder / CONFIG, VIEW.format(mark=MARK, choices=choices))
    write_json(folder / FILE, [_task(pair) for pair in pairs])
    return folder / FILE


def _task(pair: ReviewPair) -> dict[str, Any]:
    data = {
        "query_id": pair.query_id,
        "doc_id": pair.doc_id,
        "question": pair.question,
        "title": pair.title,
        "text": pair.text,
        **kept_facts(pair),
    }
    suggested = [] if pair.suggestion is None else [{"model_version": "uar", "result": [_choice(pair.suggestion)]}]
    annotations = []
    for place, row in enumerate(pair.judgements):
        results = [{"id": f"{OURS}{place}", **_choice(row["grade"])}]
        if row["start"] is not None:
            start, end = (_units(pair.text, row[name]) for name in ("start", "end"))
            value = {"start": start, "end": end, "text": row["words"], "labels": [MARK]}
            results.append({"from_name": "answer", "to_name": "passage", "type": "labels", "value": value})
        annotations.append({"result": results, "lead_time": row["seconds"], "created_at": row["time"].isoformat()})
    return {"data": data, "predictions": suggested, "annotations": annotations}


def _choice(grade: int) -> dict[str, Any]:
    return {"from_name": "grade", "to_name": "passage", "type": "choices", "value": {"choices": [str(grade)]}}


def reads(content: Any) -> bool:
    """Whether a list of JSON objects is of this kind."""
    return all(isinstance(task, dict) and "data" in task for task in content)


def read(path: Path, names: Names) -> Iterator[Returned]:
    """The annotations that were not cancelled; a task may hold several, of several people. Those that were made here are of
    the person who made them, whatever account brought them in. Of several marks the first counts, and the log says how many
    do not. `names`: of people by their accounts."""
    further = 0
    for at, task in enumerate(read_json(path), start=1):
        data = task["data"]
        for annotation in task.get("annotations") or []:
            if annotation.get("was_cancelled"):
                continue
            results = annotation.get("result") or []
            grades = [one for one in results if one.get("type") == "choices"]
            if not grades:
                continue
            marks = [one["value"] for one in results if one.get("type") == "labels"]
            further += len(marks[1:])
            ours = str(grades[0].get("id") or "")
            who = person_of(data, int(ours[len(OURS) :])) if ours.startswith(OURS) else _person(annotation, names)
            text = str(data.get("text", ""))
            one = Returned(
                at,
                str(data.get("query_id", "")),
                str(data.get("doc_id", "")),
                who,
                _grade(path, at, grades[0]["value"]["choices"]),
                None,
                _time(annotation.get("updated_at") or annotation.get("created_at")),
                annotation.get("lead_time"),
                None,
                _characters(text, marks[0]["start"]) if marks else None,
                _characters(text, marks[0]["end"]) if marks else None,
                whole=True,
            )
            yield with_facts(one, data, bool(task.get("predictions")))
    if further:
        log.warning("%s: %d marks are left out, since a judgement has one; the first of each counts", path, further)


def _person(annotation: Any, names: Names) -> str:
    by = annotation.get("completed_by")
    name = (by.get("email") or by.get("id")) if isinstance(by, dict) else by
    return "" if name is None else names[str(name)]


def _grade(path: Path, at: int, chosen: Any) -> int:
    if isinstance(chosen, list) and len(chosen) == 1 and str(chosen[0]).isdecimal():
        return int(chosen[0])
    raise DataError(path, f"task {at}: choices are {chosen!r}; one grade is needed")


def _time(text: Any) -> float | None:
    return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None


def _units(text: str, place: int) -> int:
    """UTF-16 units before a character, as a browser counts."""
    return len(text[:place].encode("utf-16-le", "surrogatepass")) // 2


def _characters(text: str, units: int) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "replace"))
