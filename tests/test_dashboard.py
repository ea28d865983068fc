"""The W&B pages are built with no key from run folders, and are what the package reads back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ok
from wandb_workspaces.reports.v2 import internal as report_model
from wandb_workspaces.workspaces.internal import View

from uar.storage.files import write_json


@pytest.fixture
def runs(tmp_path: Path) -> str:
    for name in ("a", "b"):
        told = {"retrieval": {"mini.test": {"AP": 0.5, "nDCG@10": 0.6}}, "rag": {"mini.ood": {"F1": 0.1, "questions": 2}}}
        write_json(tmp_path / "outputs" / name / "metrics.json", told)
    return "runs=outputs/*"


def titles(panels: list[dict]) -> list[str]:
    return [panel["config"].get("chartTitle") or panel["viewType"] for panel in panels]


def test_pages_show_what_the_runs_have(command: Callable, runs: str, tmp_path: Path):
    ok(command("uar.dashboard", "project=p", "entity=e", runs, "out=pages", WANDB_API_KEY=None, NETRC="/no/such/file"))
    view, page = (json.loads((tmp_path / "pages" / f"{name}.json").read_text()) for name in ("workspace", "report"))
    sections = {s["name"]: titles(s["panels"]) for s in view["spec"]["section"]["panelBankConfig"]["sections"]}
    assert sections["Retrieval"] == ["retrieval/mini.test/nDCG@10", "retrieval/mini.test/AP"]
    assert sections["RAG"] == ["rag/mini.ood/F1"] and sections["Training"] == ["loss", "dev nDCG@10", "stage"]
    assert "agreement/precision" in sections["Annotation"] and len(sections["Questions and answers"]) == 2
    grids = [b for b in page["spec"]["blocks"] if b["type"] == "panel-grid"]
    panels = [panel for grid in grids for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]]
    assert titles(panels) == [title for section in sections.values() for title in section]
    bar = panels[0]["config"]
    assert bar["metrics"] == ["retrieval/mini.test/nDCG@10"] and (bar["groupAgg"], bar["groupArea"]) == ("mean", "stddev")
    assert bar["groupBy"] == "row.value", "jobs that differ in their seed alone, not whole sweeps"
    assert (page["project"], page["displayName"]) == ({"name": "p", "entityName": "e"}, "Utility-annotated retrieval")
    assert report_model.ReportViewspec.model_validate(page) and View.model_validate(view)


def test_nothing_is_saved_without_a_key(fails: Callable, runs: str):
    told = fails("uar.dashboard", "project=p", runs, "save=true", WANDB_API_KEY=None, NETRC="/no/such/file")
    assert "no key" in told and "WANDB_API_KEY" in told
