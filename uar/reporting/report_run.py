"""The report command: tables, figures and single questions of run folders, printed and as report.md, report.tex and
report.html."""

from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.console import Console

from uar.launch.value_kinds import one_or_several
from uar.reporting.alike import notes_of
from uar.reporting.asked_table import asked_table
from uar.reporting.band_table import band_table
from uar.reporting.constants import without_constants
from uar.reporting.differences_table import differences_table
from uar.reporting.explorer import Explorer
from uar.reporting.figures import draw_all
from uar.reporting.hybrid_columns import with_hybrid
from uar.reporting.marks import Marks, marks
from uar.reporting.page import page
from uar.reporting.paper_table import PaperTable, asked_for, paper_table
from uar.reporting.result_table import (
    Table,
    agreement_table,
    columns_of,
    cost_table,
    judge_agreement_table,
    score_table,
    search_table,
)
from uar.reporting.rows import Row, find_row, given_kept, rows_of, shared, stand_ins
from uar.reporting.run_folders import find_runs
from uar.reporting.text import answers, latex, markdown, overview, terminal
from uar.storage.files import write_text


def report(cfg: DictConfig, folder: Path) -> None:
    """Print one table of `runs`; write tables, figures and the explorer to `out`. UserError for an unknown name."""
    found = find_runs(one_or_several("runs", cfg.runs))
    notes = list(found.notes)
    rows = rows_of(with_hybrid(found.runs, notes))
    notes += notes_of(rows)
    papers = asked_for(None if cfg.paper is None else one_or_several("paper", cfg.paper), rows)
    baseline = _named(str(cfg.baseline), rows, papers) if cfg.baseline is not None else None
    explorer = Explorer(hydra.utils.instantiate(cfg.explorer), rows, notes)
    against = baseline or rows[0]
    measures = list(dict.fromkeys(measure for part in ("retrieval", "rag") for _, measure in columns_of(rows, part)))
    tested = measures if baseline else measures[:1]  # to order the explorer's pairs, one will do
    others = [row for row in rows if row is not against]
    by_row = {row.name: marks(row, against, tested, notes if baseline else []) for row in others}
    differences = explorer.pairs(against, others, by_row)
    by_row = by_row if baseline else {}
    of_bands = band_table(rows, Path(cfg.bands), notes) if cfg.bands is not None else None
    tables = _tables(rows, papers, by_row, baseline, cfg.deepest, of_bands)
    out = Path(cfg.out)
    figures = draw_all(rows, out / "figures", notes, cfg.pareto)
    notes = list(dict.fromkeys(notes))
    drawn = [(figure.title, f"figures/{figure.key}.svg") for figure in figures if figure.svg]
    missing = [f"{figure.title}: {figure.missing}" for figure in figures if figure.missing]
    title, marked_against = str(cfg.title), baseline.name if baseline else ""
    words, filled = shared(rows), [*stand_ins(rows), *given_kept(rows)]
    common = " ".join([*([f"All rows of sweeps: {', '.join(words)}."] if words else []), *filled])
    write_text(out / "report.md", markdown(tables, drawn, [*notes, *missing], title, marked_against, common))
    write_text(out / "report.tex", latex(tables, marked_against))
    html = page(title, rows, tables, figures, differences, notes, marked_against, common)
    write_text(out / "report.html", html)
    console = Console(width=None if Console().is_terminal else 127)
    short = [overview(rows, by_row, marked_against, cfg.deepest), answers(rows, by_row, marked_against)]
    for table in [without_constants(table) for table in short if table] or tables[:1]:
        console.print(terminal(table, console.width, marked_against))
    for line in filled:
        console.print(line, soft_wrap=True, highlight=False)
    left_out = f"; {len(found.notes)} notes on what is missing stand in the report" if found.notes else ""
    console.print(f"{len(found.runs)} run folders, {len(rows)} rows{left_out}", soft_wrap=True, highlight=False)
    console.print(f"{(out / 'report.html').resolve()}", soft_wrap=True, highlight=False)


def _named(name: str, rows: Sequence[Row], papers: Sequence[PaperTable]) -> Row:
    """The row of that name or folder, or that a table of the paper shows by that name alone."""
    lines = [line for paper in papers for line in paper_table(paper, rows, {}).lines if line.row and line.name == name]
    shown = {line.row for line in lines}
    return find_row(rows, shown.pop() if len(shown) == 1 else name, "baseline")


def _tables(
    rows: Sequence[Row],
    papers: Sequence[PaperTable],
    by_row: dict[str, Marks],
    baseline: Row | None,
    deepest: float,
    of_bands: Table | None,
) -> list[Table]:
    """Those of the paper, then all that the runs hold."""
    name = baseline.name if baseline else ""
    own = [
        score_table("retrieval", "Retrieval", rows, "retrieval", by_row, name, deepest),
        of_bands,
        *([differences_table(rows, baseline, by_row)] if baseline else []),
        search_table(rows),
        score_table("rag", "Answers from the retrieved passages (RAG)", rows, "rag", by_row, name),
        judge_agreement_table(rows),
        agreement_table(rows),
        cost_table(rows),
        asked_table(rows),
    ]
    tables = [*(paper_table(paper, rows, by_row, name) for paper in papers), *(table for table in own if table)]
    return [without_constants(table) for table in tables] or [Table("runs", "Runs without scores", [], [])]
