"""The terminal shows lines of uar and of the user; those of other packages, and their warnings, are in the log file alone."""

import logging
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, SMALL, ok

from uar.launch.terminal_log import is_ours, tidy_terminal

PACKAGES = sysconfig.get_path("purelib")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root, kind = logging.getLogger(), logging.getLoggerClass()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.setLoggerClass(kind)


def log_of_job(folder: Path, level: int = logging.INFO) -> Path:
    """Set up the log as Hydra does for a job: stdout and a file."""
    root = logging.getLogger()
    root.handlers[:] = [logging.StreamHandler(sys.stdout), logging.FileHandler(folder / "uar.log")]
    root.setLevel(level)
    return folder / "uar.log"


def say(name: str, path: str, level: int, text: str) -> None:
    logger = logging.getLogger(name)
    logger.handle(logger.makeRecord(name, level, path, 1, text, (), None))


def test_lines_of_other_packages_are_in_the_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_file = log_of_job(tmp_path)
    tidy_terminal(0)
    say("uar.training.fit", f"{PACKAGES}/uar/training/fit.py", logging.INFO, "a stage begins")
    say("__main__", str(ROOT / "uar" / "evaluate.py"), logging.INFO, "said by a command")
    say("my_losses", "/home/me/my_losses.py", logging.INFO, "my own line")
    say("uar.labels", "/x/uar/labels.py", logging.WARNING, "a question is left out")
    say("faiss.loader", f"{PACKAGES}/faiss/loader.py", logging.INFO, "Loading faiss.")
    say("lightning", f"{PACKAGES}/lightning/x.py", logging.WARNING, "a tip")
    say("asyncio", f"{sysconfig.get_path('stdlib')}/asyncio/x.py", logging.INFO, "a selector")
    say("vllm", f"{PACKAGES}/vllm/x.py", logging.ERROR, "no memory")
    warnings.warn_explicit("old", FutureWarning, f"{PACKAGES}/torch/serialization.py", 7)
    warnings.warn_explicit("mine", UserWarning, "/home/me/my_losses.py", 9)
    shown = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
    mine = "/home/me/my_losses.py:9: UserWarning: mine"
    assert shown == [
        "a stage begins",
        "said by a command",
        "my own line",
        "warning: a question is left out",
        "error: vllm: no memory",
        f"warning: {mine}",
    ]
    kept = log_file.read_text()
    for text in (*shown[:3], "Loading faiss.", "a tip", "a selector", "torch/serialization.py:7: FutureWarning: old", mine):
        assert text in kept


def test_a_package_that_logs_on_its_own_hands_its_lines_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_file = log_of_job(tmp_path)
    early, late, files = "test_terminal_early", "test_terminal_late", "test_terminal_files"

    def sets_up(name: str, handler: logging.Handler) -> None:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).propagate = False

    sets_up(early, logging.StreamHandler())
    tidy_terminal(0)
    sets_up(late, logging.StreamHandler(sys.stdout))
    sets_up(files, logging.FileHandler(log_file.with_name("own.log")))
    for name in (early, late, files):
        say(name, f"{PACKAGES}/{name}.py", logging.WARNING, f"said by {name}")
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
    kept = log_file.read_text()
    assert kept.count(f"said by {early}") == kept.count(f"said by {late}") == 1
    assert files not in kept and files in log_file.with_name("own.log").read_text()


def test_further_processes_of_a_run_show_errors_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_file = log_of_job(tmp_path)
    tidy_terminal(1)
    say("uar.x", "/x/uar/x.py", logging.WARNING, "said by the first one too")
    say("uar.x", "/x/uar/x.py", logging.ERROR, "broken")
    assert capsys.readouterr().out.splitlines()[0].endswith("error: broken")
    assert "said by the first one too" in log_file.read_text()


def test_with_hydra_verbose_everything_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_of_job(tmp_path, logging.DEBUG)
    tidy_terminal(0)
    say("faiss.loader", f"{PACKAGES}/faiss/loader.py", logging.DEBUG, "Loading faiss.")
    assert "Loading faiss." in capsys.readouterr().out


def test_warnings_that_uar_causes_in_other_packages_are_theirs() -> None:
    record = logging.LogRecord("py.warnings", logging.WARNING, "x", 1, "", (), None)
    record.warned_in = str(Path(logging.__file__).parent / "x.py")
    assert not is_ours(record)
    record.warned_in = str(Path(__file__).parent.parent / "uar" / "training" / "fit.py")
    assert not is_ours(record)


def test_a_training_shows_its_own_lines(command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    quick = ["label_source=human", *SMALL, "rag=off", "logger=csv", "trainer.max_steps=1", "hydra.run.dir=run"]
    said = ok(command("train", *quick))
    of_others = ("GPU available", "TPU", "Tip:", "weights_only", "faiss", "FutureWarning")
    assert [line for line in said.splitlines() if any(word in line for word in of_others)] == []
    kept = (tmp_path / "run" / "uar.log").read_text()
    assert all(word in kept for word in ("GPU available", "faiss.loader", "Stage human"))
    assert "┃ stage ┃ queries ┃" in said and "│ mini.test  │" in said
