"""A review served on loopback in a thread of this process, as the command serves it, and Chromium to open it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from serving_thread import listening, serving

from uar.collections import open_collection
from uar.reviewing.label_database import Item, LabelDatabase
from uar.reviewing.labelling import Labelling
from uar.reviewing.manner import Manner
from uar.reviewing.review_app import review_app
from uar.reviewing.review_files import write_files
from uar.reviewing.review_source import ReviewSource

SCALE = ((0, "It does not help."), (1, "It helps."))


def manner(**options: Any) -> Manner:
    usual = {"scale": SCALE, "positive_grade": 1, "mode": "list", "suggestion": "hidden", "people": 1, "seed": 0}
    return Manner(**{**usual, "guideline": "Does it help?", "guideline_hash": "g1", **options})


def labelling(folder: Path, collection_folder: Path, items: list[Item] | None = None, **options: Any) -> Labelling:
    """A review in `folder` of the questions of a BEIR folder, with four of its passages each."""
    collection = open_collection(f"local:{collection_folder}:train")
    database = LabelDatabase(folder / "review.sqlite", patience=50)
    if not database.count("select count(*) from items"):
        pools = {q: list(collection.corpus.ids())[:4] for q in collection.queries}
        source = ReviewSource(collection, list(pools), lambda wanted: pools, dict, False, False)
        database.add(items or source.of(list(pools), 0, 0.0), {"review": "r1"})
    return Labelling(database, collection, manner(**options), "Do they help?")


@dataclass
class Served:
    """`told`: what the console said and what was asked of other servers; nothing is expected there."""

    url: str
    labelling: Labelling
    told: list[str] = field(default_factory=list)

    def post(self, path: str, asked: Any, **headers: str) -> httpx.Response:
        origin = {"Origin": self.url, "Content-Type": "application/json"} | headers
        return httpx.post(self.url + path, timeout=60, json=asked, headers={n: v for n, v in origin.items() if v})


@contextmanager
def served(work: Labelling, folder: Path, token: str | None = None, port: int = 0) -> Iterator[Served]:
    app = review_app(work, token, lambda: write_files(work, folder))
    with listening(port) as (bound, address), serving(app, bound, lifespan="auto"):
        yield Served(address, work)


def opened(browser: Any, at: Served, who: str = "", **options: Any) -> Any:
    """A page of its own context; with a name it is past the start."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: at.told.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(at.url) else at.told.append(request.url))
    page.goto(at.url)
    if who:
        page.locator("#who").fill(who)
        page.keyboard.press("Enter")
        page.locator("#work:not([hidden]), #end:not([hidden])").first.wait_for()
    return page


def rows(work: Labelling) -> list[Mapping[str, Any]]:
    from uar.reviewing.review_files import judgement_rows

    return list(judgement_rows(work))
