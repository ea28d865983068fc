"""The notebooks: both forms of each say the same, and all run."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import jupytext
import pytest
from conftest import ROOT, ok

Command = Callable[..., subprocess.CompletedProcess[str]]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_both_forms_are_in_step(path: Path) -> None:
    cells = [[(c.cell_type, c.source.strip()) for c in jupytext.read(p).cells] for p in (path, path.with_suffix(".ipynb"))]
    assert cells[0] == cells[1], "run: jupytext --sync notebooks/*.py"
    assert len(cells[0]) > 6 and cells[0][0][1].startswith(f"# {path.stem[0]}. ")


def test_every_notebook_has_both_forms() -> None:
    assert [p.stem for p in NOTEBOOKS] == [p.stem for p in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert len(NOTEBOOKS) == 3


TOLD = {
    "1_own_corpus": (" passages", "Questions that were kept", "human questions (mini:test)", "trained"),
    "2_label_quality": ("168 questions", "Worst disagreements", "share of the mistakes"),
    "3_human_budget": ("cost (USD)", "100%"),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_notebook_runs(name: str, command: Command) -> None:
    told = ok(command(f"notebooks/{name}", UAR_QUICK="1", MPLBACKEND="Agg"))
    assert all(part in told for part in TOLD[name]), told[-3000:]
