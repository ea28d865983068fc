"""The report command: tables, figures and single questions of run folders, printed and as report.md, report.tex and
report.html."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from uar.reporting.alike import notes_of
from uar.reporting.explorer import Explorer
from uar.reporting.figures import draw_all
from uar.reporting.hybrid_columns import with_hybrid
from uar.reporting.marks import Marks, marks
from uar.reporting.page import page
from uar.reporting.paper_table import PaperTable, asked_for, paper_table
from uar.reporting.result_table import Table, agreement_table, columns_of, cost_table, score_table
from uar.reporting.rows import Row, find_row, rows_of
from uar.reporting.run_folders import find_runs
from uar.reporting.text import latex, markdown, overview, terminal
from uar.storage.files import write_text


def report(cfg: DictConfig, folder: Path) -> None:
    """Print one table of `runs`; write tables, figures and the explorer to `out`. UserError for an unknown name."""
    found = find_runs(_several(cfg.runs) or [])
    notes = list(found.notes)
    rows = rows_of(with_hybrid(found.runs, notes))
    notes += notes_of(rows)
    baseline = find_row(rows, str(cfg.baseline), "baseline") if cfg.baseline is not None else None
    papers = asked_for(_several(cfg.paper), rows)
    explorer = Explorer(hydra.utils.instantiate(cfg.explorer), rows, notes)
    others = [row for row in rows if row is not baseline] if baseline else []
    measures = {measure for part in ("retrieval", "rag") for _, measure in columns_of(rows, part)}
    by_row = {row.name: marks(row, baseline, measures, notes) for row in others if baseline}
    tables = _tables(rows, papers, by_row, baseline.name if baseline else "")
    out = Path(cfg.out)
    figures = draw_all(rows, out / "figures", notes)
    against = baseline or rows[0]
    differences = explorer.pairs(against, [row for row in rows if row is not against])
    notes = list(dict.fromkeys(notes))
    drawn = [(figure.title, f"figures/{figure.key}.svg") for figure in figures if figure.svg]
    missing = [f"{figure.title}: {figure.missing}" for figure in figures if figure.missing]
    title, marked_against = str(cfg.title), baseline.name if baseline else ""
    write_text(out / "report.md", markdown(tables, drawn, [*notes, *missing], title, marked_against))
    write_text(out / "report.tex", latex(tables, marked_against))
    html = page(title, rows, tables, figures, differences, notes, marked_against)
    write_text(out / "report.html", html)
    console = Console(width=None if Console().is_terminal else 127)
    console.print(terminal(overview(rows) or tables[0], console.width))
    console.print(f"{(out / 'report.html').resolve()}", soft_wrap=True, highlight=False)


def _several(value: Any) -> list[str] | None:
    if value is None:
        return None
    return [str(v) for v in value] if OmegaConf.is_list(value) else [str(value)]


def _tables(rows: Sequence[Row], papers: Sequence[PaperTable], by_row: dict[str, Marks], baseline: str) -> list[Table]:
    """Those of the paper, then all that the runs hold."""
    own = [
        score_table("retrieval", "Retrieval", rows, "retrieval", by_row, baseline),
        score_table("rag", "Answers from the retrieved passages (RAG)", rows, "rag", by_row, baseline),
        agreement_table(rows),
        cost_table(rows),
    ]
    tables = [*(paper_table(paper, rows, by_row, baseline) for paper in papers), *(table for table in own if table)]
    return tables or [Table("runs", "Runs without scores", [], [])]
