"""Records as `rg.Dataset.records.from_json` of Argilla 2 reads them and `to_json` writes them: one record a passage."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from uar.errors import DataError
from uar.reviewing.exchange.kept_facts import SUGGESTED, Names, check_names, kept_facts, with_facts
from uar.reviewing.exchange.review_pairs import Returned, ReviewPair
from uar.reviewing.manner import Manner
from uar.storage.files import read_json, write_json

FILE, SETTINGS = "argilla.json", "argilla_settings.json"
OUR_IDS = ("query_id", "doc_id")


def write(folder: Path, pairs: Iterable[ReviewPair], manner: Manner) -> Path:
    """`argilla.json`, and `argilla_settings.json` for `rg.Settings.from_json`. A response's user is the person's name, which
    Argilla wants replaced by an id of its own before it takes the records."""
    fields = [
        {"name": name, "title": name, "required": name != "title", "settings": {"type": "text", "use_markdown": False}}
        for name in ("question", "title", "passage")
    ]
    options = [{"value": str(grade), "text": f"{grade}: {meaning}", "description": None} for grade, meaning in manner.scale]
    grade = {
        "name": "grade",
        "title": "Does the passage help to answer the question?",
        "required": True,
        "settings": {"type": "label_selection", "options": options, "visible_options": None},
    }
    metadata = [{"name": name, "title": name, "settings": {"type": "terms"}} for name in (*OUR_IDS, SUGGESTED)]
    write_json(
        folder / SETTINGS,
        {
            "guidelines": manner.guideline or None,
            "allow_extra_metadata": True,
            "distribution": {"strategy": "overlap", "min_submitted": manner.people},
            "fields": fields,
            "questions": [grade],
            "metadata": metadata,
            "vectors": [],
        },
    )
    write_json(folder / FILE, [_record(pair) for pair in pairs])
    return folder / FILE


def _record(pair: ReviewPair) -> dict[str, Any]:
    suggestions = {} if pair.suggestion is None else {"grade": {"value": str(pair.suggestion), "score": None, "agent": "uar"}}
    given = [{"value": str(row["grade"]), "user_id": row["who"]} for row in pair.judgements]
    return {
        "id": pair.key,
        "fields": {"question": pair.question, "title": pair.title, "passage": pair.text},
        "metadata": {"query_id": pair.query_id, "doc_id": pair.doc_id, **kept_facts(pair)},
        "suggestions": suggestions,
        "responses": {"grade": given} if given else {},
        "vectors": {},
    }


def reads(content: Any) -> bool:
    """Whether a list of JSON objects is of this kind."""
    return all(isinstance(record, dict) and "fields" in record and "metadata" in record for record in content)


def read(path: Path, names: Names) -> Iterator[Returned]:
    """The responses of each record; those that are drafts or discarded are left out. `names`: of people by their ids."""
    records = read_json(path)
    given = [(record["metadata"], (record.get("responses") or {}).get("grade", [])) for record in records]
    people = {_person(response, names) for _, responses in given for response in responses}
    check_names(path, people, (metadata for metadata, _ in given), names)
    for at, (record, (metadata, responses)) in enumerate(zip(records, given, strict=True), start=1):
        query_id, doc_id = (str(metadata.get(name, "")) for name in OUR_IDS)
        for response in responses:
            if response.get("status", "submitted") != "submitted":
                continue
            value = str(response.get("value"))
            if not value.isdecimal():
                raise DataError(path, f"record {at}: the response is {value!r}; a grade is needed")
            one = Returned(at, query_id, doc_id, _person(response, names), int(value), None)
            yield with_facts(one, metadata, bool(record.get("suggestions")))


def _person(response: Mapping[str, Any], names: Names) -> str:
    return names[str(response.get("user_id") or "")]
