"""What the page asks for: the next question of a person, and keeping what the person says of it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from uar.collections import Collection
from uar.reviewing.agreement_so_far import agreement_so_far
from uar.reviewing.label_database import LabelDatabase
from uar.reviewing.manner import Manner
from uar.reviewing.page_events import Refused, checked_event, person

HELD = 1_800.0  # seconds for which a question that somebody opened is not given to others
LATEST = 100  # labels that the median time is of
ENDING = "Thank you. This page can be closed; if more questions come, it shows them."


@dataclass
class Labelling:
    """A review that people work on. `title`: of the page; `ending`: what it says when nothing is left to judge. `clock`:
    seconds since 1970."""

    database: LabelDatabase
    collection: Collection
    manner: Manner
    title: str
    ending: str = ENDING
    clock: Callable[[], float] = time.time
    agreement: dict[str, Any] | None = None
    changes: int = 0

    def refresh(self) -> None:
        """Compute `agreement` anew; it takes seconds where there are a hundred thousand labels."""
        self.agreement = agreement_so_far(self.database, self.manner.positive_grade)

    def about(self) -> dict[str, Any]:
        """What the page shows of the whole review."""
        manner = self.manner
        return {
            "review": self.database.fact("review"),
            "title": self.title,
            "scale": [{"grade": grade, "meaning": meaning} for grade, meaning in manner.scale],
            "mode": manner.mode,
            "guideline": manner.guideline,
            "ending": self.ending,
            "items": self.database.count("select count(*) from items"),
        }

    def next(self, who: str, skipped: bool = False) -> dict[str, Any]:
        """The question that a person has open, else the next of the queue, which is then held for the person. Where there is
        none: `item` is null, and `skipped` how many the person skipped; with `skipped` these are gone through again."""
        name = person(who)
        now = self.clock()
        with self.database.change():
            found = self.database.row(
                """select item from turns where who = ? and state = 'open' order by time desc limit 1""", name
            ) or self.database.row(
                """select item from items where not exists (select 1 from turns where turns.item = items.item and who = ?)
                and (shared or (select count(*) from turns where turns.item = items.item
                and (state = 'done' or (state = 'open' and time > ?))) < ?) order by item limit 1""",
                name, now - HELD, self.manner.people,
            )  # fmt: skip
            if found is None and skipped:
                found = self.database.row(
                    "select item from turns where who = ? and state = 'skipped' order by time limit 1", name
                )
            if found is not None:
                self.turn(found["item"], name, "open", now)
        if found is None:
            left = self.database.count("select count(*) from turns where who = ? and state = 'skipped'", name)
            return {"item": None, "skipped": left, "progress": self.progress(name)}
        return self.shown(name, found["item"])

    def open(self, who: str, item: int) -> dict[str, Any]:
        """A question that the person had before."""
        name = person(who)
        self._known(item)
        with self.database.change():
            self.turn(item, name, "open", self.clock())
        return self.shown(name, item)

    def shown(self, name: str, item: int) -> dict[str, Any]:
        """A question with its passages, and what the person said of them so far."""
        query_id = self._known(item)
        query = self.collection.queries[query_id]
        shows = self.manner.shows(query_id, name)
        own = {
            row["place"]: row
            for row in self.database.rows(
                """select * from labels where grade is not null
                and rowid in (select max(rowid) from labels where item = ? and who = ? group by place)""",
                item, name,
            )
        }  # fmt: skip
        passages = []
        for row in self.database.rows("select * from passages where item = ? order by place", item):
            title, text = self.collection.corpus.parts(row["doc_id"])
            mine = own.get(row["place"])
            passages.append(
                {
                    "place": row["place"],
                    "doc_id": row["doc_id"],
                    "title": title,
                    "text": text,
                    "label": mine and {n: mine[n] for n in ("grade", "confidence", "seconds", "start", "end")},
                    "suggestion": {"label": row["label"], "grade": row["grade"]}
                    if shows and row["label"] is not None
                    else None,
                }
            )
        return {
            "item": item,
            "query_id": query_id,
            "question": query.text,
            "answers": list(query.answers) if self.manner.answers else [],
            "language": self.collection.corpus.language,
            "passages": passages,
            "progress": self.progress(name),
        }

    def save(self, who: str, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Keep labels and turns in their order; one that is kept already, by its id, is not kept twice. Refused for what is no
        label of this review; nothing of the call is kept then."""
        name = person(who)
        checked = [self._checked(event) for event in events]
        with self.database.change():
            for event in checked:
                if event["kind"] == "turn":
                    self.turn(event["item"], name, event["state"], event["time"])
                    continue
                columns = ("id", "item", "place", "grade", "confidence", "seconds", "time", "start", "end")
                row = {n: event[n] for n in columns} | {"who": name, "guideline": self.manner.guideline_hash}
                row["shown"] = self._saw(event, name)
                names = ", ".join(row)
                self.database.write(
                    f"insert or ignore into labels ({names}) values ({', '.join('?' * len(row))})", [tuple(row.values())]
                )
        self.changes += 1
        ended = {event["item"] for event in checked if event["kind"] == "turn" and event["state"] == "done"}
        return {"saved": [e["id"] for e in checked], "also": self._others(ended, name), "progress": self.progress(name)}

    def progress(self, name: str) -> dict[str, Any]:
        """Of the person and of all."""
        count = self.database.count
        seconds = self.database.rows(
            """select seconds from labels where who = ? and grade is not null and seconds is not null
            order by rowid desc limit ?""",
            name, LATEST,
        )  # fmt: skip
        return {
            "items": count("select count(*) from items"),
            "mine": count("select count(*) from turns where who = ? and state = 'done'", name),
            "skipped": count("select count(*) from turns where who = ? and state = 'skipped'", name),
            "done": count("select count(distinct item) from turns where state = 'done'"),
            "people": count("select count(distinct who) from turns"),
            "seconds": round(median(row["seconds"] for row in seconds), 1) if seconds else None,
            "agreement": self.agreement,
        }

    def settled(self) -> bool:
        """Whether nobody has anything left to judge: each question is done by as many people as wanted, or everyone who
        labels has skipped it."""
        found = self.database.row(
            """select exists (select 1 from items where
            (select count(*) from turns where turns.item = items.item and state = 'done') < ?
            and ((select count(*) from turns where turns.item = items.item and state = 'skipped')
                < (select count(distinct who) from turns)
                or not exists (select 1 from turns where turns.item = items.item))) as open""",
            self.manner.people,
        )
        return found is not None and not found["open"]

    def skipped_by_all(self) -> int:
        """How many questions somebody skipped and nobody judged."""
        return self.database.count(
            """select count(*) from items where exists (select 1 from turns where turns.item = items.item)
            and not exists (select 1 from turns where turns.item = items.item and state != 'skipped')"""
        )

    def turn(self, item: int, name: str, state: str, now: float) -> None:
        """Within a change of the database: what a person is doing with a question."""
        self.database.write("insert or replace into turns values (?, ?, ?, ?)", [(item, name, state, now)])

    def suggests(self, item: int, place: int, name: str) -> bool:
        """Whether a person is shown what the LLM said of a passage."""
        row = self.database.row("select label from passages where item = ? and place = ?", item, place)
        return row is not None and row["label"] is not None and self.manner.shows(self._known(item), name)

    def has_seen(self, item: int, place: int, name: str) -> bool:
        """Whether a person judged the passage before with a suggestion in sight, which cannot be unseen."""
        query = "select exists (select 1 from labels where item = ? and place = ? and who = ? and shown) as seen"
        row = self.database.row(query, item, place, name)
        return row is not None and bool(row["seen"])

    def _saw(self, event: Mapping[str, Any], name: str) -> bool:
        """Whether the person has seen a suggestion, as the page says: it may send what it kept while another setting held."""
        at = event["item"], event["place"]
        return self.has_seen(*at, name) or (self.suggests(*at, name) if event["shown"] is None else event["shown"])

    def _others(self, items: set[int], name: str) -> list[str]:
        """Who else has judged questions that were meant for fewer people."""
        found = set()
        for item in items:
            rows = self.database.rows(
                """select who from turns join items using (item) where item = ? and state = 'done' and not shared
                and who != ?""",
                item, name,
            )  # fmt: skip
            if len(rows) >= self.manner.people:
                found |= {row["who"] for row in rows}
        return sorted(found)

    def _known(self, item: int) -> str:
        row = self.database.row("select query_id from items where item = ?", item)
        if row is None:
            raise Refused(f"question {item} is not of this review; load the page again")
        return str(row["query_id"])

    def _checked(self, event: Mapping[str, Any]) -> dict[str, Any]:
        item = event.get("item")
        if type(item) is not int:
            raise Refused("an event needs the number of its question; load the page again")
        self._known(item)
        passages = self.database.count("select count(*) from passages where item = ?", item)
        return checked_event(event, passages, len(self.manner.scale), self.clock())
