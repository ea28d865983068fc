"""One table over runs: a row a run, a group of columns a collection; best values marked."""

from collections.abc import Sequence

from rich.table import Table

from uar.reporting.runs import RunFolder

DASH = "–"
Cells = list[list[str]]


def columns(runs: Sequence[RunFolder]) -> list[tuple[str, str, str]]:
    """(part, slug, measure) of every value that a run has, retrieval before RAG."""
    seen: dict[tuple[str, str, str], None] = {}
    slugs = list(dict.fromkeys(s for run in runs for part in ("retrieval", "rag") for s in run.metrics[part]))
    for slug in slugs:
        for part, measures in (("retrieval", ("nDCG@10", "R@100")), ("rag", ("EM", "F1"))):
            for measure in measures:
                if any(measure in run.metrics[part].get(slug, {}) for run in runs):
                    seen[(part, slug, measure)] = None
    return list(seen)


def cells(runs: Sequence[RunFolder]) -> tuple[list[str], Cells, list[set[int]]]:
    """(headers, rows of text, for each row the indices of its cells that are the best of their column)."""
    wanted = columns(runs)
    values = [[run.metrics[part].get(slug, {}).get(measure) for part, slug, measure in wanted] for run in runs]
    best: list[set[int]] = [set() for _ in runs]
    for at in range(len(wanted)):
        there = [row[at] for row in values if row[at] is not None]
        for row, marked in zip(values, best, strict=True):
            if len(runs) > 1 and row[at] is not None and row[at] == max(there):
                marked.add(at + 1)
    rows = [[run.name, *(DASH if v is None else f"{v:.3f}" for v in row)] for run, row in zip(runs, values, strict=True)]
    return ["run", *(f"{slug} {measure}" for _, slug, measure in wanted)], rows, best


def terminal(runs: Sequence[RunFolder]) -> Table:
    headers, rows, best = cells(runs)
    table = Table()
    for header in headers:
        table.add_column(header.replace(" ", "\n"), justify="left" if header == "run" else "right", no_wrap=True)
    for row, marked in zip(rows, best, strict=True):
        table.add_row(*(f"[bold]{cell}[/bold]" if at in marked else cell for at, cell in enumerate(row)))
    return table


def markdown(runs: Sequence[RunFolder]) -> str:
    headers, rows, best = cells(runs)
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    for row, marked in zip(rows, best, strict=True):
        lines.append("| " + " | ".join(f"**{c}**" if at in marked else c for at, c in enumerate(row)) + " |")
    return "\n".join(lines) + "\n"
