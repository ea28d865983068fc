"""`python -m uar.report 'runs=outputs/sweep/*' out=DIR`: one table over run folders, printed and as report.md."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from uar.entry import entry
from uar.files import write_text
from uar.reporting.runs import find_runs
from uar.reporting.table import markdown, terminal


def report(cfg: DictConfig, folder: Path) -> None:
    """Print the table of `runs`, and write it to `out`/report.md."""
    runs = find_runs([cfg.runs] if isinstance(cfg.runs, str) else list(cfg.runs))
    Console(width=None if Console().is_terminal else 127).print(terminal(runs))
    write_text(Path(cfg.out) / "report.md", markdown(runs))


if __name__ == "__main__":
    entry("report", report)
