"""What all lines of a table have in common stands above it once."""

from dataclasses import replace

from uar.reporting.result_table import Table


def without_constants(table: Table) -> Table:
    """Without the columns of counts that say the same in all lines, and without a number of seeds that all deviations have."""
    told, kept = [], []
    for at, column in enumerate(table.columns):
        values = {line.cells[at].value for line in table.lines} - {None}
        whole = all(line.cells[at].value is not None for line in table.lines)
        if column.count and len(values) == 1 and len(table.lines) > 1:
            (value,) = values
            name = " ".join(filter(None, (column.group, f"{column.number(value or 0)} {column.heading}")))
            told.append(f"{name}{'' if whole else ', where at all'}")
        else:
            kept.append(at)
    lines = [replace(line, cells=[line.cells[at] for at in kept]) for line in table.lines]
    seeds = {cell.seeds for line in lines for cell in line.cells if cell.deviation is not None}
    if len(seeds) == 1:
        told.append(f"± is the standard deviation over {seeds.pop()} seeds")
        lines = [replace(line, cells=[replace(cell, alone=True) for cell in line.cells]) for line in lines]
    shared = [f"All rows: {'; '.join(told)}."] if told else []
    return replace(table, columns=[table.columns[at] for at in kept], lines=lines, shared=[*table.shared, *shared])
