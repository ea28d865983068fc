"""A few results as a table in the log: on the terminal and in the log file alike."""

import io
import logging
import sys
from collections.abc import Iterable, Sequence
from shutil import get_terminal_size

from rich.console import Console
from rich.table import Table

WIDEST = 127  # where stdout is no terminal

Cell = str | float | None


def log_table(log: logging.Logger, title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """One entry of the log: the title and below it the table."""
    log.info("%s\n%s", title, small_table(columns, rows))


def small_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Names in the first column, values in the others. Whole numbers are written as such, others with four digits behind the
    point, or one from 10 up; None is a dash, what is true or false yes or no."""
    table = Table(*columns[:1])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    for name, *values in rows:
        table.add_row(*(text.replace("[", r"\[") for text in map(_text, (name, *values))))
    return as_text(table)


def as_text(table: Table) -> str:
    """As wide as the terminal."""
    width = get_terminal_size().columns if sys.stdout.isatty() else WIDEST
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _text(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
