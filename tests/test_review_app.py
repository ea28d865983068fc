"""The server of the review page: what it keeps, whom it lets in, what it says when something is wrong."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from review_page import Served, labelling, rows, served

from uar.errors import UserError
from uar.reviewing.access import is_loopback, token_for
from uar.reviewing.agreement_so_far import agreement_so_far
from uar.reviewing.label_database import Item, LabelDatabase, StorageFault
from uar.reviewing.labelling import HELD, Labelling
from uar.storage.judgement_files import read_judgements


@pytest.fixture
def work(tmp_path: Path, folder: Path) -> Labelling:
    """Three questions of four passages."""
    return labelling(tmp_path / "r", folder)


@pytest.fixture
def at(work: Labelling, tmp_path: Path) -> Iterator[Served]:
    with served(work, tmp_path / "r") as found:
        yield found


def events(item: int, grades: list[int | None], done: bool = True, mark: str = "") -> list[dict[str, Any]]:
    labels = [
        {"id": f"event-{item}-{n}-{mark}", "kind": "label", "item": item, "place": n, "grade": g} for n, g in enumerate(grades)
    ]
    return labels + ([{"id": f"turn-{item}-{mark}-", "kind": "turn", "item": item, "state": "done"}] if done else [])


def judge(of: Labelling, who: str, grades: list[int | None]) -> int | None:
    """What a person says of the next question; its number."""
    item = of.next(who)["item"]
    if item is not None:
        of.save(who, events(item, grades, mark=who))
    return item


def test_a_label_is_on_the_disk_when_it_was_answered_and_is_kept_once(at: Served, work: Labelling, tmp_path: Path) -> None:
    item = at.post("/next", {"who": " ann  lee "}).json()["item"]
    for _ in range(2):  # a browser that got no answer sends it again
        assert at.post("/save", {"who": "ann lee", "events": events(item, [1, 0], done=False)}).status_code == 200
    apart = sqlite3.connect(tmp_path / "r" / "review.sqlite")  # what a killed server would leave
    assert apart.execute("select who, grade from labels order by place").fetchall() == [("ann lee", 1), ("ann lee", 0)]
    assert at.post("/next", {"who": "ann lee"}).json()["passages"][0]["label"]["grade"] == 1, "the open question comes again"
    assert at.post("/save", {"who": "ann lee", "events": events(item, [None], False, "undo")}).status_code == 200
    assert [row["grade"] for row in rows(work)] == [0] and apart.execute("select count(*) from labels").fetchone() == (3,)


def test_people_get_different_questions_and_share_some(work: Labelling, tmp_path: Path, folder: Path) -> None:
    assert [work.next(who)["item"] for who in ("ann", "bob", "ann")] == [0, 1, 0]
    assert judge(work, "ann", [1, 0, 0, 0]) == 0 and work.next("eve")["item"] == 2
    assert work.next("ann")["item"] is None, "the others are held by bob and eve"
    now = work.clock()
    work.clock = lambda: now + HELD + 1
    assert work.next("ann")["item"] == 1, "whoever left the page does not keep its question"
    items = [Item(q, ["d1"], {"d1": "t"}, {}, shared=q == "q1") for q in ("q1", "q2")]
    both = labelling(tmp_path / "shared", folder, items)
    assert [judge(both, who, [1]) for who in ("ann", "bob", "ann", "bob")] == [0, 0, 1, None]
    assert agreement_so_far(both.database, 1)["passages"] == 1 and both.settled()


def test_two_people_who_saved_the_same_question_are_both_kept(at: Served, work: Labelling, tmp_path: Path) -> None:
    for who, grades in (("ann", [1, 0, 0, 0]), ("bob", [1, 1, 0, 0])):
        work.open(who, 0)
        reply = at.post("/save", {"who": who, "events": events(0, grades, mark=who)}).json()
    assert reply["also"] == ["ann"] and len(rows(work)) == 8
    agreement = agreement_so_far(work.database, 1)
    assert (agreement["passages"], agreement["equal"]) == (4, 0.75) and 0 < agreement["alpha"] < 1


def test_a_skipped_question_goes_to_others_and_comes_back(work: Labelling) -> None:
    skip = {"id": "turn-skip-0", "kind": "turn", "item": work.next("ann")["item"], "state": "skipped"}
    work.save("ann", [skip])
    assert work.next("bob")["item"] == 0 and not work.settled()
    assert [judge(work, "ann", [0] * 4) for _ in range(3)] == [1, 2, None]
    found = work.next("ann")
    assert found["skipped"] == 1 and work.next("ann", skipped=True)["item"] == 0
    work.save("ann", [skip])
    assert not work.settled(), "bob has it open"
    work.save("bob", [skip])
    assert work.settled(), "everyone skipped it"


def test_suggestions_are_sent_to_those_alone_who_see_them(tmp_path: Path, folder: Path) -> None:
    items = [Item(f"q{n}", ["d1"], {"d1": "t"}, {"d1": (1, None)}, False) for n in (1, 2, 3)]
    for suggestion, seen in (("hidden", {False}), ("shown", {True}), ("random", {True, False})):
        work = labelling(tmp_path / suggestion, folder, items, suggestion=suggestion)
        shown = {(who, n): work.shown(who, n)["passages"][0]["suggestion"] for who in ("ann", "bob") for n in range(3)}
        assert {one is not None for one in shown.values()} == seen
        for who in ("ann", "bob"):
            work.save(who, [event for n in range(3) for event in events(n, [0], mark=who)])
        assert {(r["who"], int(r["query_id"][1]) - 1): r["suggestion_shown"] for r in rows(work)} == {
            key: one is not None for key, one in shown.items()
        }
        assert all(row["suggestion"] == 1 for row in rows(work))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 403),  # what another page may send without asking
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),  # a name that it lets point to 127.0.0.1
        ({"Host": "[::1", "Origin": "http://[::1"}, 403),
    ],
)
def test_no_other_web_page_may_write(at: Served, work: Labelling, headers: dict[str, str], status: int) -> None:
    assert at.post("/save", {"who": "ann", "events": events(0, [1], False)}, **headers).status_code == status
    assert len(rows(work)) == int(status == 200)


def test_no_other_name_may_read(at: Served) -> None:
    page = httpx.get(at.url)
    policy = page.headers["content-security-policy"]
    assert page.status_code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    assert httpx.get(at.url, headers={"Host": "evil.example"}).status_code == 403
    assert httpx.get(f"{at.url}/../labelling.py").status_code == 404


def test_elsewhere_than_on_loopback_everything_needs_the_token(work: Labelling, tmp_path: Path) -> None:
    with served(work, tmp_path / "r", token="secret") as at:
        assert [httpx.get(at.url + path).status_code for path in ("/", "/review.js", "/?token=wrong")] == [403] * 3
        assert at.post("/about", {}).status_code == 403
        with httpx.Client(base_url=at.url, headers={"Origin": at.url, "Content-Type": "application/json"}) as client:
            first = client.get("/?token=secret")
            assert (first.status_code, first.headers["location"]) == (303, "/"), "the address bar keeps no secret"
            assert {"HttpOnly", "SameSite=strict"} <= set(first.headers["set-cookie"].split("; "))
            assert client.get("/").status_code == 200 and client.post("/about", json={}).status_code == 200
            evil = client.post("/about", json={}, headers={"Origin": "http://evil.example"})
            assert evil.status_code == 403
    assert (
        token_for("127.0.0.1") is token_for("localhost") is token_for("::1") is None and len(token_for("0.0.0.0") or "") > 20
    )
    assert not is_loopback("192.168.1.2") and not is_loopback("example.org")


FAULTS: list[tuple[Any, int, str]] = [
    ({"who": "", "events": []}, 409, "a name of 1 to 60"),
    ({"who": "a\u0000b", "events": []}, 409, "printable"),
    ({"who": "ann", "events": {}}, 409, "events must be a list"),
    ({"who": "ann", "events": [{"id": "12345678", "kind": "label", "item": 99}]}, 409, "question 99 is not of this review"),
    ({"who": "ann", "events": [{"id": "1", "kind": "label", "item": 0}]}, 409, "needs an id"),
    ({"who": "ann", "events": events(0, [2])}, 409, "grade is 2; 0 to 1"),
    ({"who": "ann", "events": events(0, [1, 1, 1, 1, 1])}, 409, "place is 4; question 0 has passages 0 to 3"),
    ([], 409, "an object of JSON is needed"),
    ("x" * (1 << 21), 413, "more than"),
]


@pytest.mark.parametrize(("asked", "status", "told"), FAULTS)
def test_what_is_no_label_is_refused_and_nothing_of_it_kept(
    at: Served, work: Labelling, asked: Any, status: int, told: str
) -> None:
    reply = at.post("/save", asked)
    assert reply.status_code == status and told in reply.json()["error"] and rows(work) == []


def test_a_locked_or_full_database_is_told_and_what_comes_later_is_kept(at: Served, work: Labelling) -> None:
    holding = sqlite3.connect(work.database.path, isolation_level=None)
    holding.execute("begin exclusive")
    sent = {"who": "ann", "events": events(0, [1], False)}
    reply = at.post("/save", sent)
    assert reply.status_code == 503 and "another program holds it" in reply.json()["error"]
    holding.execute("rollback")
    assert at.post("/save", sent).status_code == 200 and len(rows(work)) == 1
    pages = work.database.count("pragma page_count")
    work.database.rows(f"pragma max_page_count = {pages}")
    full = [{**event, "id": f"{event['id']}{n}" * 2} for n in range(200) for event in events(0, [1], False)]
    reply = at.post("/save", {"who": "ann", "events": full})
    assert reply.status_code == 503 and "free some space" in reply.json()["error"]
    work.database.rows("pragma max_page_count = 100000")
    assert at.post("/save", {"who": "ann", "events": full}).status_code == 200


def test_a_database_that_is_none_or_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.sqlite").write_text("no database at all, but long enough to be read as one" * 20)
    with pytest.raises(UserError, match="file is not a database; give another out="):
        LabelDatabase(tmp_path / "broken.sqlite")
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(StorageFault, match="give a folder that can be written"):
        LabelDatabase(tmp_path / "folder.sqlite")


def test_files_are_written_while_labels_come_in(at: Served, work: Labelling, tmp_path: Path) -> None:
    at.post("/save", {"who": "ann", "events": events(0, [1, 0, 0, 0])})
    path = tmp_path / "r" / "judgements.parquet"
    for _ in range(600):
        if path.is_file():
            break
        httpx.get(at.url)
    assert read_judgements(path).table.num_rows == 4


def test_ten_thousand_questions_are_served(tmp_path: Path, folder: Path) -> None:
    work = labelling(tmp_path / "many", folder, [])
    with work.database.change():
        work.database.write("delete from items where item >= ?", [(0,)])
        work.database.write("delete from passages where item >= ?", [(0,)])
    texts = {"d1": "t", "d2": "t"}
    work.database.add([Item(f"x{n}", ["d1", "d2"], texts, {}, False) for n in range(9_999)])
    work.database.add([Item("q1", ["d1", "d2"], texts, {}, False)])
    with work.database.change():
        work.database.write("insert into turns values (?, 'ann', 'done', 0)", [(n,) for n in range(9_999)])
    found = work.next("ann")
    assert (found["item"], found["progress"]["mine"], found["progress"]["items"]) == (9_999, 9_999, 10_000)
