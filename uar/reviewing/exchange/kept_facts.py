"""What other tools have no place for, kept in the data of a passage, which they leave as it is: who judged it, and how."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from uar.errors import DataError
from uar.reviewing.exchange.review_pairs import Returned, ReviewPair

SUGGESTED, JUDGED = "suggested", "judged"  # yes | no, and judgements as lines of JSON: a tool may allow plain values alone
AS_TIMED = ("seconds", "confidence", "start", "end")


class Names(dict[str, str]):
    """What people are called, by the ids that a tool has for them; an id that is not among these is a name."""

    def __missing__(self, given: str) -> str:
        return given


def check_names(path: Path, people: Collection[str], facts: Iterable[Mapping[str, Any]], names: Names) -> None:
    """DataError where people whose judgements went out are nowhere among the `people` of a file, and others are: a tool that
    gave them ids of its own would make two persons of each. `names`: those that were given for ids."""
    sent = {person_of(one, place) for one in facts for place in range(len(one.get(JUDGED) or ()))}
    gone, others = sorted(sent - set(people)), sorted(set(people) - sent - set(names.values()))
    if gone and others:
        given = ",".join(f"{other}: NAME" for other in others)
        raise DataError(
            path, f"judgements of {', '.join(gone)} went out, and those that came back are of {', '.join(others)}; say who "
            f"is who: 'names={{{given}}}'"
        )  # fmt: skip


def kept_facts(pair: ReviewPair) -> dict[str, Any]:
    """Whether the passage goes out with a suggestion, and the judgements that it has."""
    judged = [
        json.dumps(
            {name: row[name] for name in ("who", "grade", "suggestion_shown", *AS_TIMED)} | {"time": row["time"].timestamp()},
            ensure_ascii=False,
        )
        for row in pair.judgements
    ]
    return {SUGGESTED: "no" if pair.suggestion is None else "yes", JUDGED: judged}


def person_of(facts: Mapping[str, Any], place: int) -> str:
    """Who made the judgement at a place of those that went out."""
    return str(json.loads(facts[JUDGED][place])["who"])


def with_facts(one: Returned, facts: Mapping[str, Any], suggested: bool) -> Returned:
    """A judgement with what went out beside it: all of one that came back as it was, else whether the person has seen a
    suggestion, and of one whose marks alone changed how sure the person was. `suggested`: whether the passage comes back with
    one."""
    shown = True if suggested else {"yes": True, "no": False}.get(facts.get(SUGGESTED, ""))
    for known in map(json.loads, facts.get(JUDGED) or ()):
        if known["who"] != one.who:
            continue
        same_grade, same_marks = known["grade"] == one.grade, (known["start"], known["end"]) == (one.start, one.end)
        if same_grade and (same_marks or not one.whole):
            own = {name: known[name] for name in (*AS_TIMED, "time")}
            return replace(one, shown=known["suggestion_shown"], **own)
        sure = known["confidence"] if same_grade else None
        return replace(one, shown=shown or known["suggestion_shown"], confidence=sure)
    return replace(one, shown=shown)
