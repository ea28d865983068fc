"""How figures look: one style, colours that a page can swap for its theme's, SVG that stands inside HTML."""

import io
import logging
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uar.reporting.figures.missing import Missing
from uar.storage.files import whole_file

INK, GRID, FADED = "#222426", "#e4e5e7", "#a9adb1"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#9b4f96", "#8a6d00", "#3f8fd2", "#b03a48", "#5f6b76")  # told apart by all eyes
MARKERS = "osD^vPX*"
STROKES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)), (0, (4, 1, 1, 3)))
MOST = len(SERIES)
LINE = 52  # letters of a line of a legend
LEGEND_LINE = 0.16  # inches


@contextmanager
def styled() -> Iterator[None]:
    ink: Any = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    look: Any = {
        "font.size": 9,
        "axes.titlesize": 9,
        "legend.fontsize": 8,
        "grid.color": GRID,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.hashsalt": "uar",
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context({**ink, **look}):
        yield


def new(height: float = 3.1) -> tuple[Figure, Axes]:
    """A figure that is read at the width of a phone as well."""
    figure = Figure(figsize=(4.8, height), layout="constrained")
    return figure, figure.subplots()


def legend(axes: Axes, figure: Figure) -> None:
    """Below the axes, so that it hides nothing; the figure grows by what it takes, so that the axes keep their height."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = min(1 if max(map(len, labels)) > LINE // 2 else 2, len(labels))
        lines = sum(label.count("\n") + 1 for label in labels) / columns
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE * max(0, lines - 2))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def wrapped(name: str) -> str:
    """A name as lines of a legend, whole."""
    return "\n".join(textwrap.wrap(name, LINE, break_on_hyphens=False)) or name


def capped(names: Sequence[str], what: str, notes: list[str]) -> list[str]:
    """At most as many as there are colours; a note where some are left out."""
    if len(names) > MOST:
        notes.append(f"{what}: {MOST} of {len(names)} are drawn, {', '.join(names[MOST:])} are not; give fewer runs")
    return list(names[:MOST])


def save(figure: Figure, stem: Path) -> None:
    """As SVG and PDF, each the same bytes for the same data."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph that a PDF takes
    for suffix, metadata in ((".svg", {"Date": None}), (".pdf", {"CreationDate": None})):
        with whole_file(stem.with_suffix(suffix)) as beside:
            figure.savefig(beside, format=suffix[1:], metadata=metadata)


def inline(figure: Figure, key: str, label: str) -> str:
    """The figure as an `svg` element whose ids are its own, whose colours are CSS variables and whose text is text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r"url\(#", f"url(#{key}-", svg)
    svg = re.sub(r'xlink:href="#', f'xlink:href="#{key}-', svg)
    for name, colour in {
        "ink": INK,
        "grid": GRID,
        "faded": FADED,
        **{f"series-{n}": c for n, c in enumerate(SERIES, start=1)},
    }.items():
        svg = re.sub(re.escape(colour), f"var(--{name})", svg, flags=re.IGNORECASE)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font: \1 var(--sans)", svg)
    head = f'<svg role="img" aria-label="{escape(label)}"'
    return re.sub(r'^<svg([^>]*?) width="[^"]*"', rf"{head}\1", re.sub(r' height="[\d.]+pt"', "", svg, count=1), count=1)


def need(found: object, message: str) -> None:
    """Missing where there is nothing."""
    if not found:
        raise Missing(message)
