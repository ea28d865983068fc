"""Tables as Markdown, as LaTeX (booktabs) and in a terminal."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from rich.console import Group
from rich.markup import escape
from rich.table import Table as Terminal
from rich.text import Text

from uar.reporting.deep_measures import too_deep
from uar.reporting.marks import Marks, meaning
from uar.reporting.result_table import Cell, Column, Table, columns_of, plain_table, trained_first
from uar.reporting.rows import Row

LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "·": r"\textperiodcentered{}",
    "…": r"\ldots{}",
    "<": "$<$",
    ">": "$>$",
}
FEW = ("nDCG@10", "R@100", "RR@10")  # in this order, the first two that a collection has
ANSWERS = ("EM", "F1", "AnswerRecall", "F1 (oracle)")  # in this order, those that a collection has
ROOM = 8  # columns that most terminals have room for
LONGEST = 40  # letters of a name in a line of a terminal
STYLES = {1: "bold", 2: "underline", 0: ""}
PLACES = {1: ("**", "**"), 2: ("<u>", "</u>"), 0: ("", "")}


def markdown(
    tables: Sequence[Table],
    figures: Sequence[tuple[str, str]],
    notes: Sequence[str],
    title: str = "",
    baseline: str = "",
    shared: str = "",
) -> str:
    """Tables, links to figures (title, path) and notes. `baseline`: the row that marks compare with. `shared`: what all rows
    have in common."""
    parts = [f"# {_cell(title)}"] if title else []
    parts += [_cell(shared)] if shared else []
    parts += [text for table in tables for text in _markdown_table(table, baseline)]
    parts += [f"![{title}]({path})" for title, path in figures]
    if notes:
        parts.append("## Missing or left out\n\n" + "\n".join(f"- {_cell(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table, baseline: str) -> Iterator[str]:
    yield f"## {table.title}"
    yield from map(_cell, table.shared)
    heads = [table.head]
    for column in table.columns:
        heads += [" ".join(filter(None, (column.group, head))) if at == 0 else head for at, head in enumerate(column.heads())]
    lines = [_piped(heads), "|" + "---|" * len(heads)]
    for line in table.lines:
        cells = [_cell(line.name)]
        for column, cell in zip(table.columns, line.cells, strict=True):
            begin, end = PLACES[cell.place]
            cells += [f"{begin}{cell.number(column)}{end}{_raised(cell)}{cell.spread(column)}"] * column.ours
            cells += [cell.beside(column)] * column.paper
        lines.append(_piped(cells))
    yield "\n".join(lines)
    yield from map(_cell, [*table.notes, *_key(table, baseline)])


def _key(table: Table, baseline: str) -> list[str]:
    """What bold, underlined, ± and the marks of a table mean, of those that it has."""
    cells = [cell for line in table.lines for cell in line.cells]
    found = {
        "Bold: best; underlined: second best.": any(cell.place for cell in cells),
        "±: standard deviation over seeds, whose number follows.": any(
            cell.deviation is not None and not cell.alone for cell in cells
        ),
        meaning(baseline): any(cell.mark for cell in cells),
    }
    return [text for text, there in found.items() if there]


def _raised(cell: Cell) -> str:
    return f"<sup>{cell.mark}</sup>" if cell.mark else ""


def _cell(text: str) -> str:
    return re.sub(r"([|<*_`\\\[\]])", r"\\\1", " ".join(text.split()))


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def latex(tables: Sequence[Table], baseline: str = "") -> str:
    """A file to \\input, a table environment each. `baseline`: the row that marks compare with."""
    head = "% Needs \\usepackage{booktabs,graphicx}.\n"
    return head + "\n".join(_latex_table(table, baseline) for table in tables)


def _latex_table(table: Table, baseline: str) -> str:
    widths = [len(column.heads()) for column in table.columns]
    grouped = any(column.group for column in table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(' '.join([table.title + '.', *table.shared, *table.notes, *_key(table, baseline)]))}}}",
        rf"\label{{tab:{table.key}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * sum(widths)}}}",
        r"\toprule",
    ]
    if grouped:
        lines += _latex_groups(table.columns)
    heads = [table.head, *(head for column in table.columns for head in column.heads())]
    lines += [_ampersands(map(tex, heads)), r"\midrule"]
    for line in table.lines:
        cells = [tex(line.name)]
        for column, cell in zip(table.columns, line.cells, strict=True):
            cells += [_latex_cell(column, cell)] * column.ours + [tex(cell.beside(column))] * column.paper
        lines.append(_ampersands(cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def _latex_groups(columns: Sequence[Column]) -> list[str]:
    cells, rules, at = [""], [], 2
    for group, members in groupby(columns, key=lambda column: column.group):
        width = sum(len(column.heads()) for column in members)
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{tex(group)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}" if group else "")
        at += width
    return [_ampersands(cells), "".join(rules)]


def _latex_cell(column: Column, cell: Cell) -> str:
    number = tex(cell.number(column))
    number = {1: rf"\textbf{{{number}}}", 2: rf"\underline{{{number}}}"}.get(cell.place, number)
    mark = {"+": "$^{+}$", "−": "$^{-}$"}.get(cell.mark, "")
    return f"{number}{mark}{tex(cell.spread(column))}"


def _ampersands(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def tex(text: str) -> str:
    """Text whose characters LaTeX would take as commands are escaped."""
    return "".join(LATEX.get(c, c) for c in text)


def terminal(table: Table, width: int, baseline: str = "") -> Group:
    """What all lines share, the columns for which `width` letters have room, and what their signs mean; it says where there
    are more columns. `baseline`: the row that marks compare with."""
    longest = min(LONGEST, max((len(line.name) for line in table.lines), default=0))
    shown = Terminal()
    shown.add_column(table.head, min_width=longest)
    room, kept = width - longest - 4, 0
    written = [[_plain(column, line.cells[at]) for line in table.lines] for at, column in enumerate(table.columns)]
    for column, cells in zip(table.columns, written, strict=True):
        room -= max(len(column.group), len(column.heading), *map(len, cells)) + 3
        if room < 0 and kept:
            break
        kept += 1
        shown.add_column(f"{column.group}\n{column.heading}", justify="right", no_wrap=True)
    for at, line in enumerate(table.lines):
        places = [STYLES[cell.place] for cell in line.cells[:kept]]
        shown.add_row(escape(line.name), *(Text(text[at], style) for style, text in zip(places, written, strict=False)))
    more = [f"{kept} of {len(table.columns)} columns; report.html has them all."] if kept < len(table.columns) else []
    return Group(*map(Text, table.shared), shown, *map(Text, [*_key(table, baseline), *table.notes, *more]))


def _plain(column: Column, cell: Cell) -> str:
    return f"{cell.number(column)}{cell.mark}{cell.spread(column)}"


def overview(
    rows: Sequence[Row], by_row: Mapping[str, Marks] | None = None, baseline: str = "", deepest: float = 1.0
) -> Table | None:
    """Two measures of retrieval a collection, as fit a terminal; of many collections one each."""
    found = columns_of(rows, "retrieval")
    wanted: list[tuple[str, str]] = []
    for few in (2, 1):
        wanted = []
        for slug in dict.fromkeys(slug for slug, _ in found):
            shown = [m for m in FEW if (slug, m) in found and not too_deep(rows, slug, m, deepest)]
            wanted += [(slug, m) for m in shown[:few]]
        if len(wanted) <= ROOM:
            break
    return _short("overview", rows, "retrieval", wanted, by_row, baseline)


def answers(rows: Sequence[Row], by_row: Mapping[str, Marks] | None = None, baseline: str = "") -> Table | None:
    """Of each collection that was answered from, the measures of a terminal; where it has none of these, its first two."""
    found = columns_of(rows, "rag")
    wanted: list[tuple[str, str]] = []
    for slug in dict.fromkeys(slug for slug, _ in found):
        own = [m for s, m in found if s == slug]
        wanted += [(slug, m) for m in ([m for m in ANSWERS if m in own] or own[:2])]
    return _short("answers", rows, "rag", wanted, by_row, baseline)


def _short(
    key: str,
    rows: Sequence[Row],
    part: str,
    wanted: Sequence[tuple[str, str]],
    by_row: Mapping[str, Marks] | None,
    baseline: str,
) -> Table | None:
    columns = [Column(*at) for at in wanted]
    shown = trained_first(rows, [(part, *at) for at in wanted], columns)
    return plain_table(key, "", *shown, by_row or {}, baseline)
