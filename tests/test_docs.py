"""The documentation: its commands compose, its code runs, its options are all explained, its links hold."""

import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from scripted import BEES, Scripted, run
from test_readme import COMMANDS, composes

from uar.collections import open_collection
from uar.evaluate import evaluate
from uar.evaluation.score_files import read_score_file
from uar.launch.config_reference import config_files
from uar.launch.entry import composed
from uar.storage.runs import read_run

PAGES = sorted((ROOT / "docs").rglob("*.md"))
COMMAND = re.compile(r"python (?:train\.py|annotate\.py|-m uar\.\w+)(?: [^`\n#]*)?")
OWN = {"loss=best_positive", "annotator=answerable", "--config-dir own"}  # of the recipes that add them


def commands() -> list[str]:
    found = {command.strip() for page in PAGES for command in COMMAND.findall(page.read_text(encoding="utf-8"))}
    return sorted(c for c in found - set(COMMANDS) if not any(own in c for own in OWN))


@pytest.mark.parametrize("text", commands())
def test_every_command_composes(text: str) -> None:
    composes(text)


def code_of(page: str) -> dict[str, Any]:
    """What the Python blocks of a page define."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(block, page, "exec", dont_inherit=True), names)
    return names


def test_the_loss_of_the_recipe_is_right() -> None:
    best_positive = code_of("recipes/own-loss.md")["best_positive"]
    scores = torch.tensor([[2.0, 1.0, 0.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    targets = torch.tensor([[True, True, False, False], [False] * 4])
    valid = torch.tensor([[True, True, True, False]] * 2)
    assert best_positive(scores, targets, valid).item() == pytest.approx(math.log1p(math.exp(-2)))
    assert best_positive(scores, targets, valid, margin=1.0).item() == pytest.approx(math.log1p(math.exp(-1)))


def test_the_annotator_of_the_recipe_runs(tmp_path: Path) -> None:
    answerable = code_of("recipes/own-annotator.md")["Answerable"](template="qa_metric")
    engine = Scripted(lambda request: "honey" if "make honey" in request.messages[-1][1] else "Unknown.")
    judged, _ = run(tmp_path, answerable, engine)
    assert {j.doc_id: j.label for j in judged["q1"]} == {d: int("make honey" in text) for d, text in BEES.passages.items()}
    failing = Scripted(lambda request: "")
    assert run(tmp_path / "other", answerable, failing, max_failure_rate=1.0)[0] == {}


def test_the_measure_of_the_recipe_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module as the page has it, by the page's own command, on `mini`."""
    text = (ROOT / "docs" / "recipes" / "own-measure.md").read_text(encoding="utf-8")
    (tmp_path / "my_measures.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    monkeypatch.syspath_prepend(tmp_path)
    (words,) = (shlex.split(found)[3:] for found in COMMAND.findall(text) if "my_measures" in found)
    assert evaluate(composed("evaluate", *words, "logger=none"), tmp_path / "run") > 0
    scores = read_score_file(tmp_path / "run" / "scores" / "mini.test.parquet")
    found, run = scores["my_measures.Complete@10"], read_run(tmp_path / "run" / "runs" / "mini.test.trec")
    collection = open_collection("mini:test")
    for query, value in found.items():
        wanted = {d for d, gain in collection.gains()[query].items() if gain >= 1}
        assert value == float(wanted <= {d for d, _ in run[query][:10]})
    assert 0 < sum(found.values()) < len(found)


def test_python_of_the_faq_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert code_of("faq.md")["ledger"]["calls"] == 4
    assert (tmp_path / "outputs" / "from_python" / "labels.parquet").is_file()


def test_every_option_of_every_config_says_what_it_means() -> None:
    files = config_files()
    assert {f"{f.group}/{f.name}".lstrip("/") for f in files} == {
        str(p.relative_to(ROOT / "conf").with_suffix("")) for p in (ROOT / "conf").rglob("*.yaml")
    }
    options = {(f.group, f.name, o.name): o for f in files for o in f.options}
    assert options["candidates", "bm25", "depth"].default == "8"
    assert options["candidates", "bm25", "depth"].meaning.startswith("passages a query")
    assert options["candidates", "given", "depth"].meaning == options["candidates", "bm25", "depth"].meaning
    assert options["", "train", "training.optimizer.weight_decay"].default == "0.01"
    assert not [" ".join(key) for key, option in options.items() if not option.meaning]


def test_the_site_builds_with_every_link_and_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    for name in ("NO_MKDOCS_2_WARNING", "DISABLE_MKDOCS_2_WARNING"):
        monkeypatch.setenv(name, "true")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build(config)
    finally:
        config.plugins.on_shutdown()
    site = tmp_path / "site"
    assert {p.relative_to(ROOT / "docs").with_suffix("") for p in PAGES if p.stem != "index"} <= {
        p.relative_to(site).with_suffix("") for p in site.rglob("*.html")
    }
    reference = site / "reference"
    for file in config_files():
        text = (reference / "options" / (file.group or "commands").replace("/", "-")).with_suffix(".html").read_text()
        assert all(f"<code>{option.name}</code>" in text for option in file.options), file
    assert "Weighted mean over rows of −Σ" in (reference / "python" / "uar.losses.html").read_text()
    pages = (page.read_text(encoding="utf-8") for page in site.rglob("*.html"))
    loaded = {url for page in pages for url in re.findall(r'(?:<script[^>]*src|<link[^>]*href)="(https?://[^"]*)"', page)}
    assert not loaded, "the site opens with no network"
