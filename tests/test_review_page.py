"""The review page in Chromium, by keys alone: what is typed is what is kept."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium
from conftest import write_jsonl
from review_page import Served, labelling, opened, rows, served
from test_report import contrast

from uar.reviewing.label_database import Item
from uar.reviewing.labelling import Labelling

HOSTILE = '<img src=x onerror="document.title=1"> & <script>alert(1)</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def work(tmp_path: Path, folder: Path) -> Labelling:
    """Three questions of four passages."""
    return labelling(tmp_path / "r", folder)


@pytest.fixture
def at(work: Labelling, tmp_path: Path) -> Iterator[Served]:
    with served(work, tmp_path / "r") as found:
        yield found
    assert found.told == []


def typed(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def shows(page: Any, question: str) -> None:
    page.get_by_role("heading", name=question, exact=True).wait_for()


def kept(page: Any) -> None:
    """All events have gone to the server."""
    page.locator("#alert").wait_for(state="hidden")
    for _ in range(1_500):
        if not page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('uar.r1')).length"):
            return
        page.wait_for_timeout(20)
    raise AssertionError("events are waiting")


def grades(work: Labelling, who: str = "ann") -> list[tuple[str, int]]:
    return [(row["query_id"], row["grade"]) for row in rows(work) if row["who"] == who]


def test_keys_alone_grade_mark_undo_and_skip(browser: Any, at: Served, work: Labelling) -> None:
    page = opened(browser, at, "ann")
    shows(page, "what pumps blood")
    typed(page, "1", "Enter")  # three have no grade yet
    assert "3 of 4 passages have no grade yet" in page.locator("#status").inner_text()
    typed(page, "7", "u", "0", "j", "1", "ArrowUp", "0")
    assert page.locator(".passage.at .unsure").get_attribute("aria-pressed") == "false"
    typed(page, "z", "x", "Enter")
    shows(page, "what do bees make")
    found = rows(work)
    assert [row["grade"] for row in found] == [1, 0, 0, 1] and [row["confidence"] for row in found] == [1, 0, 1, 1]
    assert all(0 <= row["seconds"] < 60 for row in found)
    typed(page, "s")
    shows(page, "where does the danube end")
    typed(page, "z")
    shows(page, "what do bees make")
    text = page.locator(".passage.at .text").inner_text()
    typed(page, "m", "ArrowRight", "Shift+ArrowRight", "Enter")
    kept(page)
    marked = next(row for row in rows(work) if row["words"])
    assert marked["words"] == " ".join(text.split()[1:3]) and marked["grade"] == 1
    assert page.locator("mark").inner_text() == marked["words"]
    typed(page, "z")
    kept(page)
    assert len(rows(work)) == 4, "the mark and the grade that came with it are undone"
    assert "1 of 3 questions by you" in page.locator("#progress").inner_text()


def test_one_passage_at_a_time_goes_on_by_itself_to_the_end(browser: Any, tmp_path: Path, folder: Path) -> None:
    work = labelling(tmp_path / "r", folder, mode="passage")
    with served(work, tmp_path / "r") as at:
        page = opened(browser, at, "ann")
        for question in ("what pumps blood", "what do bees make", "where does the danube end"):
            shows(page, question)
            assert page.locator(".passage:visible").count() == 1
            typed(page, "0", "1", "0", "0")
        page.get_by_role("heading", name="Nothing is left to judge.").wait_for()
        typed(page, "z")
        shows(page, "where does the danube end")
        typed(page, "1")
        page.get_by_role("heading", name="Nothing is left to judge.").wait_for()
        kept(page)
    assert [grade for _, grade in grades(work)] == [0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1] and at.told == []


def test_a_killed_server_loses_nothing_and_the_page_goes_on(browser: Any, tmp_path: Path, folder: Path) -> None:
    first = labelling(tmp_path / "r", folder)
    with served(first, tmp_path / "r") as at:
        page = opened(browser, at, "ann")
        typed(page, "1")
        kept(page)
        port = int(at.url.rpartition(":")[2])
    typed(page, "0", "1")
    page.get_by_text("2 entries wait in this browser").wait_for()
    second = labelling(tmp_path / "r", folder)
    with served(second, tmp_path / "r", port=port):
        page.locator("#alert").wait_for(state="hidden")
        kept(page)
        assert [grade for _, grade in grades(second)] == [1, 0, 1]
        page.reload()  # and so does a page that was closed
        shows(page, "what pumps blood")
        assert page.locator("[aria-pressed=true].grade").all_inner_texts() == ["1", "0", "1"]


def test_a_page_that_was_closed_with_labels_on_the_way_sends_them_when_it_is_opened(
    browser: Any, at: Served, work: Labelling
) -> None:
    page = opened(browser, at, "ann")
    event = {"kind": "label", "id": "0123456789ab", "item": 0, "place": 2, "grade": 1, "time": 1.0}
    page.evaluate("text => localStorage.setItem('uar.r1.7', text)", json.dumps([{"who": "ann", "event": event}]))
    page.reload()
    kept(page)
    assert [grade for _, grade in grades(work)] == [1]


def test_two_people_at_once(browser: Any, at: Served, work: Labelling) -> None:
    ann, bob = opened(browser, at, "ann"), opened(browser, at, "bob")
    shows(ann, "what pumps blood")
    shows(bob, "what do bees make")
    typed(ann, "1", "x", "Enter")
    shows(ann, "where does the danube end")
    typed(bob, "x", "Enter")
    bob.get_by_role("heading", name="Nothing is left to judge.").wait_for()
    typed(ann, "x", "Enter")
    ann.get_by_role("heading", name="Nothing is left to judge.").wait_for()
    assert len(grades(work, "ann")) == 8 and len(grades(work, "bob")) == 4


def test_suggestions_stand_where_they_are_shown_and_are_not_sent_where_not(browser: Any, tmp_path: Path, folder: Path) -> None:
    items = [Item("q1", ["d1", "d2"], {"d1": "t", "d2": "t"}, {"d1": (1, 1), "d2": (0, None)}, True)]
    for suggestion, number in (("shown", 2), ("hidden", 0)):
        work = labelling(tmp_path / suggestion, folder, items, suggestion=suggestion)
        with served(work, tmp_path / suggestion) as at:
            page = opened(browser, at, "ann")
            assert page.locator(".suggestion").count() == number
            if number:
                texts = page.locator(".suggestion").all_inner_texts()
                assert texts == ["The LLM says: 1, It helps.", "The LLM says: it does not help to answer"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_texts_are_texts_and_both_themes_are_readable(browser: Any, tmp_path: Path, folder: Path, scheme: str) -> None:
    write_jsonl(folder / "queries.jsonl", [{"_id": "q1", "text": HOSTILE}])
    corpus = [{"_id": f"d{n}", "title": HOSTILE, "text": f"{HOSTILE} {n}"} for n in range(4)]
    write_jsonl(folder / "corpus.jsonl", corpus)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    work = labelling(tmp_path / "r", folder, guideline=HOSTILE)
    with served(work, tmp_path / "r") as at:
        page = opened(browser, at, HOSTILE[:60], color_scheme=scheme)
        assert page.locator("#question").inner_text() == HOSTILE and page.locator(".passage img, .passage script").count() == 0
        assert page.locator("#guideline").inner_text() == HOSTILE and page.title() == "Do they help?"
        typed(page, "1")
        colours = page.evaluate(
            """() => {
                const of = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
                const style = (selector) => getComputedStyle(document.querySelector(selector));
                const pair = (selector, ground) => [of(style(selector).color), of(style(ground).backgroundColor)];
                return [pair("#question", "body"), pair("#progress", "body"), pair(".passage.graded .text", "body"),
                    pair("#status", "#status"), pair("[aria-pressed=true]", "[aria-pressed=true]"),
                    pair("#help-button", "button")];
            }"""
        )
        assert all(contrast(*pair) >= 4.5 for pair in colours), colours
        assert (sum(colours[0][1]) < 150) == (scheme == "dark")
        assert at.told == []


def test_a_phone_scrolls_down_alone_and_right_to_left_text_runs_so(browser: Any, tmp_path: Path, folder: Path) -> None:
    arabic = "القلب يضخ الدم في الجسم كله"
    write_jsonl(folder / "queries.jsonl", [{"_id": "q1", "text": "ما الذي يضخ الدم؟"}])
    write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": f"{arabic} {'ا' * 90}"} for n in range(4)])
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    work = labelling(tmp_path / "r", folder)
    with served(work, tmp_path / "r") as at:
        page = opened(browser, at, "ann", viewport={"width": 360, "height": 740}, has_touch=True)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        heights = page.evaluate("[...document.querySelectorAll('.grades button, #turns button')].map(b => b.offsetHeight)")
        assert min(heights) >= 40 and max(heights) < 60, "room for a finger, and one line each"
        directions = page.evaluate("['#question', '.text'].map(s => getComputedStyle(document.querySelector(s)).direction)")
        assert directions == ["rtl", "rtl"]
        typed(page, "m", "ArrowLeft", "Shift+ArrowLeft", "Enter")  # to the left is onward
        kept(page)
        assert rows(work)[0]["words"] == " ".join(arabic.split()[1:3])
        page.locator(".passage").nth(1).get_by_role("button", name="1", exact=True).tap()
        kept(page)
        assert len(rows(work)) == 2


def test_the_page_can_be_read_by_machines_that_read_aloud(browser: Any, at: Served) -> None:
    page = opened(browser, at)
    page.get_by_label("Your name").wait_for()
    page.wait_for_function("document.activeElement?.id === 'who'")
    page.locator("#who").fill("a\u202eb")  # turns the direction of what follows
    typed(page, "Enter")
    page.get_by_role("alert").get_by_text("a name of 1 to 60 printable characters is needed").wait_for()
    page.locator("#who").fill("ann \u200c lee")
    typed(page, "Enter")
    shows(page, "what pumps blood")
    assert page.get_by_role("article", name="passage 1 of 4").evaluate("n => n === document.activeElement")
    typed(page, "?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    typed(page, "1", "Escape")
    assert not page.get_by_role("dialog").is_visible() and page.locator("[aria-pressed=true]").count() == 0
    typed(page, "g")
    assert not page.locator("#guideline").is_visible()
