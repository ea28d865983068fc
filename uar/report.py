"""`python -m uar.report 'runs=outputs/sweep/*' out=DIR`: tables, figures and single questions of run folders, printed and as
report.md, report.tex and report.html."""

from pathlib import Path

from omegaconf import DictConfig

from uar.launch.entry import entry


def report(cfg: DictConfig, folder: Path) -> None:
    """The report command, whose libraries are imported when it runs."""
    from uar.reporting import report_run

    report_run.report(cfg, folder)


def main() -> None:
    entry("report", report)


if __name__ == "__main__":
    main()
