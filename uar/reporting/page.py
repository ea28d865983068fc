"""The report as one HTML page that needs nothing besides itself."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from uar.reporting.figures import Drawn
from uar.reporting.result_table import DASH, Column, Table
from uar.reporting.rows import Row
from uar.reporting.run_folders import RunFolder

FOLDER = Path(__file__).parent / "page"


def page(
    title: str,
    rows: Sequence[Row],
    tables: Sequence[Table],
    figures: Sequence[Drawn],
    explorer: Mapping[str, Any],
    notes: Sequence[str],
    baseline: str,
    shared: str = "",
) -> str:
    """`explorer`: see `Explorer.pairs`. `baseline`: name of the row that marks compare with, or empty. `shared`: what all rows
    have in common."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["groups"] = lambda columns: list(_groups(columns))
    environment.filters["breakable"] = _breakable
    environment.globals.update(zip=zip, commit=_commit)
    return environment.get_template("report.html.jinja").render(
        title=title,
        rows=rows,
        runs=sum(len(row.folders) for row in rows),
        tables=tables,
        figures=figures,
        explorer=explorer,
        notes=notes,
        baseline=baseline,
        shared=shared,
        data=_embedded(explorer),
        css=(FOLDER / "report.css").read_text(encoding="utf-8"),
        js=(FOLDER / "report.js").read_text(encoding="utf-8"),
    )


def _groups(columns: Sequence[Column]) -> Iterator[tuple[str, int]]:
    for group, members in groupby(columns, key=lambda column: column.group):
        yield group, sum(len(column.heads()) for column in members)


def _breakable(name: str) -> Markup:
    """A name that lines may break within, after its marks."""
    return Markup("<wbr>").join(re.split(r"(?<=[,=/_·])", name.replace(" %", "\u00a0%")))


def _embedded(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _commit(run: RunFolder) -> str:
    return str(run.manifest.get("git_commit") or DASH)[:10]
