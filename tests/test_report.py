"""The report command on real runs, and its page in a real browser."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chromium import chromium
from commands import run_command
from conftest import ROOT, SMALL, ok
from written_runs import write_labels, write_parquet, write_run

from uar.collections import open_collection
from uar.storage.files import write_jsonl, write_text

if TYPE_CHECKING:
    from playwright.sync_api import Page

Command = Callable[..., subprocess.CompletedProcess[str]]
SCORE = {"mini.test": {"nDCG@10": 0.5}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a training and BM25, on a few questions of mini and their passages; answers beside BM25's run; two
    annotators of which one takes what people chose and one does not."""
    folder = tmp_path_factory.mktemp("runs")
    questions = _part_of_mini(folder / "small")
    common = ["limit=8", *SMALL[1:3], "trainer.max_steps=2", "trainer.log_every_n_steps=1", "rag=off", "logger=csv"]
    common.append("training.keep_better=false")  # two steps may do harm, and 4 dev questions cannot tell
    data = ["dataset=local", "dataset.path=small", "label_source=human"]
    ok(run_command("train", ["-m", *data, "seed=0,1", *common, "hydra.sweep.dir=sweep"], folder, 600, {}))
    bm25 = ["retriever=bm25", "collections=[local:small:test]", "hydra.run.dir=bm25"]
    ok(run_command("uar.evaluate", bm25, folder, 600, {}))
    told = {"question": "?", "gold": ["x"], "answer": "<i>an answer", "line": "oracle"}
    write_parquet(folder / "bm25" / "generations" / "small.test.parquet", [{"query_id": q, **told} for q in questions])
    for name, label in (("yes", 1), ("no", 0)):
        run = write_run(folder / "annotators" / name, dataset__train="local:small:test", annotator=name)
        write_labels(run, [(q, d, label, "llm", "llm") for q, d in questions.items()])
    return folder


def _part_of_mini(folder: Path) -> dict[str, str]:
    """A collection folder with splits train, dev and test; of the last by question a positive."""
    parts = {split: open_collection(f"mini:{split}") for split in ("train", "dev", "test")}
    chosen = {split: list(part.queries)[:number] for (split, part), number in zip(parts.items(), (8, 4, 16), strict=True)}
    queries = [parts[split].queries[q] for split in parts for q in chosen[split]]
    docs = dict.fromkeys(d for split, part in parts.items() for q in chosen[split] for d in part.qrels[q])
    corpus = parts["test"].corpus
    write_jsonl(
        folder / "corpus.jsonl", [dict(zip(("_id", "title", "text"), (d, *corpus.parts(d)), strict=True)) for d in docs]
    )
    write_jsonl(folder / "queries.jsonl", [{"_id": q.id, "text": q.text, "answers": q.answers} for q in queries])
    (folder / "collection.json").write_text('{"positive_grade": 2}')
    for split, part in parts.items():
        rows = [f"{q}\t{d}\t{grade}\n" for q in chosen[split] for d, grade in part.qrels[q].items()]
        write_text(folder / "qrels" / f"{split}.tsv", "".join(["query-id\tcorpus-id\tscore\n", *rows]))
    return {q: parts["test"].positives(q)[0] for q in chosen["test"]}


@pytest.fixture(scope="module")
def report(runs: Path) -> Path:
    """Of all runs below the folder."""
    words = ["runs=.", "out=report", "baseline=bm25", "paper=table2", "title=<One> & two", "deepest=0.5"]
    told = ok(run_command("uar.report", words, runs, 600, {}))
    assert str(runs / "report" / "report.html") in told and "5 run folders, 4 rows" in told
    assert "All rows: trained on 8 questions, where at all; ± is the standard deviation over 2 seeds." in told
    return runs / "report"


def test_a_report_of_real_runs_is_whole(report: Path):
    found = {path.name for path in report.iterdir()}
    assert found == {"report.md", "report.tex", "report.html", "figures", "uar.log"}
    text = (report / "report.md").read_text()
    assert "## Table 2: in-domain retrieval" in text and "small.test nDCG@10" in text
    assert "over 2 seeds" in text and "trained on 8 questions" in text and "R@100 is left out, as it looks at " in text
    assert {path.stem for path in (report / "figures").iterdir()} == {"positives", "loss"}  # the others have one point
    assert r"\begin{tabular}" in (report / "report.tex").read_text()
    page = (report / "report.html").read_text()
    assert "&lt;One&gt; &amp; two" in page
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page
    assert len(page) < 1_000_000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runs=nothing/*"], "no folder with a metrics.json"),
        (["runs=run", "paper=table99"], "paper=table99: no such table; allowed: figure3, table1, table2"),
        (["runs=run", "baseline=other"], "baseline=other: no such run; allowed: run"),
        (["runs=run", "explorer.queries=0"], "explorer.queries=0: a whole number from 1 on is needed"),
    ],
)
def test_mistakes_are_one_line(fails: Callable[..., str], tmp_path: Path, arguments: list[str], told: str):
    write_run(tmp_path / "run", SCORE)
    assert told in fails("uar.report", *arguments, "out=report")
    assert not (tmp_path / "report" / "report.html").exists()


def test_make_report_runs_a_sweep_of_eight_and_prints_the_page():
    """Without running it: the sweep is the one of `test_train`, the report that of this module."""
    done = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "report", "INSTALLED=", "BIN=bin", "REPORT=x"],
        capture_output=True,
        text=True,
        check=True,
    )
    sweep, report = [line for line in done.stdout.splitlines() if line.startswith("bin/python")]
    assert "-m label_source=human,llm loss=contrastive,summed_marginal seed=0,1 limit=48" in sweep
    assert report.startswith("bin/python -m uar.report 'runs=x/sweep/*' out=x")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as found:
        yield found


@pytest.fixture
def open_page(browser, report: Path) -> Iterator[Callable[..., "Page"]]:
    """Open the page from disk with no network; at the end there must have been no error and no request."""
    contexts, told = [], []

    def open_it(width: int = 1280, scheme: str = "light") -> "Page":
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True))
        page = contexts[-1].new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else told.append(request.url))
        page.goto((report / "report.html").as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert told == []


def test_tables_sort_by_their_headings(open_page: Callable[..., "Page"]):
    page = open_page()
    table = page.locator("#table-retrieval")
    head = table.locator("th[aria-sort]").nth(1)
    values = table.locator("tbody tr td:nth-child(2)")

    def shown() -> list[float]:
        return [float(v) for v in values.evaluate_all("cells => cells.map(cell => cell.dataset.value)")]

    assert len(shown()) == 2 and head.inner_text().startswith("nDCG@10")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending" and shown() == sorted(shown(), reverse=True)
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending" and shown() == sorted(shown())
    assert table.locator("tbody tr").count() == 2
    paper = page.locator("#table-table2 th.paper").first
    paper.locator("button").click()
    cells = page.locator("#table-table2 tbody tr td.paper:nth-of-type(3)").evaluate_all("c => c.map(x => x.dataset.value)")
    numbers = [float(v) for v in cells if v]
    assert numbers == sorted(numbers, reverse=True) and cells[len(numbers) :] == [""] * (len(cells) - len(numbers))


def test_long_names_of_folders_break_and_hide_no_column(open_page: Callable[..., "Page"]):
    page = open_page()
    assert page.locator("#runs .scroll").evaluate("node => node.scrollWidth <= node.clientWidth")
    page.evaluate("document.querySelectorAll('#runs .folder code').forEach((node) => node.prepend('a=b,'.repeat(60)))")
    assert page.locator("#runs .scroll").evaluate("node => node.scrollWidth <= node.clientWidth")


def test_the_explorer_sorts_filters_and_shows(open_page: Callable[..., "Page"]):
    page = open_page()
    items = page.locator("#questions > li")
    everything = items.count()
    assert "(seed 0) minus bm25 on small.test" in page.locator("#count").inner_text()

    def differences() -> list[float]:
        texts = page.locator("#questions .difference").all_inner_texts()
        return [float(t.replace("−", "-").lstrip("±")) for t in texts]

    assert everything > 3 and 0 not in differences() and differences() == sorted(differences())
    page.select_option("#order", "gain")
    assert differences() == sorted(differences(), reverse=True)
    page.select_option("#measure", "AP")
    assert "AP of " in page.locator("#count").inner_text()
    everything = items.count()
    question = items.nth(2).locator("summary span").nth(1).inner_text()
    page.fill("#filter", question.upper())
    assert items.count() == 1 and page.locator("#count").inner_text().startswith(f"1 of {everything} ")
    page.fill("#filter", "no question has these words")
    assert items.count() == 0
    page.fill("#filter", "")
    assert items.count() == everything
    items.first.locator("summary").click()
    told = items.first.locator(".detail")
    told.wait_for()  # it is made when the box says that it was opened, a moment after the click
    assert told.locator(".both ol").count() == 2 and told.locator(".both ol").first.locator("li").count() == 5
    assert told.locator(".both li p").first.inner_text() and told.locator(".chip.yes").count() >= 1
    assert {"LLM + (yes)", "LLM − (no)"} <= set(told.locator(".chip").all_inner_texts())
    assert "Generated (oracle): " in told.inner_text() and "<i>an answer" in told.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_readable_and_the_button_changes_them(open_page: Callable[..., "Page"], report: Path, scheme: str):
    """Contrast of text, and of what figures are drawn with, against the page's ground, as WCAG defines it."""
    page = open_page(scheme=scheme)

    def colours() -> dict[str, list[float]]:
        return page.evaluate(
            """() => {
                const of = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
                const style = (selector, name) => of(getComputedStyle(document.querySelector(selector))[name]);
                const probe = document.createElement("i");
                document.body.append(probe);
                const value = (name) => { probe.style.color = `var(--${name})`; return of(getComputedStyle(probe).color); };
                const found = {ground: style("body", "backgroundColor"), text: style("body", "color"), muted: value("muted")};
                for (let n = 1; n <= 8; n++) found[`series-${n}`] = value(`series-${n}`);
                for (const name of ["accent", "gain", "loss"]) found[name] = value(name);
                found.figure = style("#figure-loss svg text", "fill");
                return found;
            }"""
        )

    def readable() -> float:
        found = colours()
        ground = found.pop("ground")
        for name, colour in found.items():
            least = 3 if name.startswith("series") else 4.5
            assert contrast(colour, ground) >= least, (name, colour, ground)
        return luminance(ground)

    before = readable()
    assert (before < 0.2) == (scheme == "dark")
    page.screenshot(path=report.parent / f"{scheme}.png", full_page=True)
    assert (report.parent / f"{scheme}.png").stat().st_size > 50_000
    button = page.locator("#theme")
    assert button.get_attribute("aria-pressed") == str(scheme == "dark").lower()
    button.click()
    assert (readable() < 0.2) != (scheme == "dark")
    assert button.get_attribute("aria-pressed") == str(scheme != "dark").lower()


def luminance(colour: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_phone_scrolls_tables_and_not_the_page(open_page: Callable[..., "Page"]):
    page = open_page(width=360)
    page.locator("#questions summary").first.click()
    page.locator("#questions .detail").first.wait_for()
    page.locator("#figures summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    outside = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((node) => !node.closest(".scroll") && !node.closest("svg")
            && node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    scrolled = page.locator("#table-table2 .scroll").evaluate("node => node.scrollWidth > node.clientWidth")
    assert scrolled


def test_the_page_can_be_read_by_machines_that_read_aloud(open_page: Callable[..., "Page"]):
    page = open_page()
    problems = page.evaluate(
        """() => {
            const found = [];
            const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
            ids.filter((id, at) => ids.indexOf(id) !== at).forEach((id) => found.push(`id ${id} twice`));
            document.querySelectorAll("th:not([scope])").forEach((node) => found.push(`th ${node.textContent}`));
            document.querySelectorAll("svg:not([aria-label])").forEach(() => found.push("svg without a label"));
            document.querySelectorAll("[aria-labelledby]").forEach((node) => {
                if (!document.getElementById(node.getAttribute("aria-labelledby"))) found.push(node.tagName);
            });
            document.querySelectorAll("select, input").forEach((node) => { if (!node.labels.length) found.push(node.id); });
            return found;
        }"""
    )
    assert problems == []
