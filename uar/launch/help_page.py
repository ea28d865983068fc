"""What `--help` prints: the options of that command alone, with their meanings and the choices of groups."""

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from uar.launch.command_options import Shown, Taken, compose, groups_of, options_of
from uar.launch.config_reference import config_files
from uar.launch.override_text import overrides_of

FLAGS = ("--help", "-h")
WIDTH = 127  # where stdout is no terminal
LONGEST_VALUE = 34


def asks_for_help(words: Sequence[str]) -> bool:
    return any(word in FLAGS for word in words)


def print_help(config_name: str, words: Sequence[str]) -> None:
    """To stdout. `words`: the command line, whose overrides are taken: `annotator=utilsel --help` has the options of that."""
    taken = compose(config_name, overrides_of(words))
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=False)
    about = next(file.about for file in config_files() if (file.group, file.name) == ("", config_name))
    console.print(Text(f"{about}\n"))
    sections = [("Options: OPTION=VALUE", _options([option for option in options_of(taken) if not option.place]))]
    if groups_of(taken):
        sections.insert(0, ("Choices: GROUP=NAME", _choices(taken)))
    for title, table in sections:
        console.print(Text(title, "bold"))
        console.print(Padding(table, (0, 0, 1, 2)))
    for place, options in groupby((o for o in options_of(taken) if o.place), key=lambda option: option.place):
        chosen = "=".join(taken.packages[place]) if place in taken.packages else place
        console.print(Text(f"Options of {chosen}", "bold"))
        console.print(Padding(_options(list(options)), (0, 0, 1, 2)))
    console.print(
        Text(
            "With GROUP=NAME --help, the options of that choice. -m: OPTION=A,B runs every combination. --cfg job: the whole "
            "config. --hydra-help: flags of Hydra."
        )
    )


def _choices(taken: Taken) -> Table:
    table = _table("group", "taken", "choices")
    chosen = dict(taken.packages.values())
    for group, names in groups_of(taken).items():
        table.add_row(group, chosen.get(group, ""), Text(" ".join(names)))
    return table


def _options(options: Sequence[Shown]) -> Table:
    table = _table("option", "value", "meaning")
    for option in options:
        table.add_row(option.name, Text(_written(option.value)), Text(option.meaning))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns[:-1]:
        table.add_column(column, no_wrap=len(columns[0]) == len(column), max_width=LONGEST_VALUE, overflow="fold")
    table.add_column(columns[-1], overflow="fold")
    return table


def _written(value: Any) -> str:
    """As the command line takes it."""
    if isinstance(value, str):
        return "needed" if value == "???" else value
    return json.dumps(value, ensure_ascii=False).replace('"', "")
