"""A run folder has one owner, and no two jobs get the same one."""

import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from conftest import ok

from uar.errors import UserError
from uar.launch.owner import OWNED, owned

Command = Callable[..., subprocess.CompletedProcess[str]]
BM25 = ["retriever=bm25", "collections=[mini:test]", "logger=none"]
IMPORT = ["dataset=local", "dataset.path=toy", "annotator=import", "logger=none", "candidates.depth=4"]


@pytest.fixture
def labels(folder: Path) -> Path:
    """Of every question of the small collection."""
    path = folder.parent / "labels.tsv"
    path.write_text("".join(f"q{n}\td{n}\t1\n" for n in (1, 2, 3)))
    return path


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(command: Command, tmp_path: Path):
    """Every second of the next minutes has a run already."""
    for later in range(300):
        second = datetime.now() + timedelta(seconds=later)
        taken = tmp_path / "outputs" / f"{second:%Y-%m-%d}" / f"{second:%H-%M-%S}-evaluate"
        taken.mkdir(parents=True)
    ok(command("uar.evaluate", *BM25))
    (metrics,) = (tmp_path / "outputs").rglob("metrics.json")
    assert metrics.parent.name.endswith("-evaluate-2")
    assert f"name: {metrics.parent.parent.name}/{metrics.parent.name}" in (metrics.parent / "config.yaml").read_text()


def test_a_folder_that_another_process_writes_to_is_refused(
    fails: Callable[..., str], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with owned(tmp_path / "outputs" / "x"):
        with owned(tmp_path / "outputs" / "x"):
            pass  # so do the processes that the owner starts
        monkeypatch.delenv(OWNED)  # another process
        line = fails("uar.evaluate", *BM25, "name=x")
    assert "outputs/x: process " in line and "is writing there" in line and "name=" in line
    ok(command("uar.evaluate", *BM25, "name=x"))


def test_a_sweep_over_an_option_that_names_leave_out_has_a_folder_a_job(
    command: Command, tmp_path: Path, folder: Path, labels: Path
):
    shutil.copytree(folder, tmp_path / "other")
    words = ["-m", *IMPORT[:1], *IMPORT[2:], f"annotator.path={labels}", "hydra.sweep.dir=sweep"]
    ok(command("annotate", *words, "dataset.path=toy,other"))
    names = {path.parent.name for path in (tmp_path / "sweep").glob("*/labels.parquet")}
    assert len(names) == 2 and {"dataset.path=toy" in name for name in names} == {True, False}
    ok(command("annotate", *words, "dataset.path=toy", "hydra.sweep.dir=alone"))
    assert not list((tmp_path / "alone").glob("*dataset.path*"))


def test_a_sweep_refuses_two_jobs_with_one_folder(fails: Callable[..., str], tmp_path: Path, labels: Path):
    (tmp_path / "a").mkdir()
    for copy in ("a/b.tsv", "a-b.tsv"):
        shutil.copy(labels, tmp_path / copy)
    line = fails("annotate", "-m", *IMPORT, "annotator.path=a/b.tsv,a-b.tsv", "hydra.sweep.dir=sweep")
    assert "two jobs of this sweep have one folder" in line and "annotator.path=a-b.tsv, annotator.path=a/b.tsv" in line
    (kept,) = (tmp_path / "sweep").glob("*/config.yaml")
    assert "path: a/b.tsv" in kept.read_text(), "the results of the first are kept"


def test_jobs_of_two_sweeps_may_follow_each_other_in_a_folder(tmp_path: Path):
    for sweep, seed in (("one", "seed=0"), ("two", "seed=1"), (None, "seed=2")):
        with owned(tmp_path, sweep, [seed]):
            pass
    with owned(tmp_path, "three", ["seed=0"]):
        pass
    with owned(tmp_path, "three", ["seed=0"]):  # a search may try the same twice
        pass
    with pytest.raises(UserError, match="not tell them apart .seed=0, seed=1."), owned(tmp_path, "three", ["seed=1"]):
        pass
