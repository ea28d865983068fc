"""Any text as a value of Hydra's command line and configs, which give meaning to quotes, backslashes and `${`."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import read_write

INTERPOLATION = re.compile(r"(\\*)\$\{")
PLAIN = re.compile(r"[A-Za-z_/][\w./:@%+-]*")
WORDS = ("null", "true", "false", "nan", "inf")  # that Hydra takes for values


def quoted(text: str) -> str:
    """As an override's value, in quotes."""
    return QuotedString(text=literal(text), quote=Quote.single).with_quotes()


def written(value: Any) -> str:
    """Any plain value, as Hydra's command line reads it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    if not isinstance(value, str) or (PLAIN.fullmatch(text) and text.lower() not in WORDS):
        return text
    return quoted(text)


def typed(command: str, options: Mapping[str, Any]) -> str:
    """A command with its options, as it is typed in a shell."""
    return shlex.join(["python", "-m", f"uar.{command}", *(f"{name}={written(value)}" for name, value in options.items())])


def literal(value: Any) -> Any:
    """Plain values, with their texts as a config spells them: `${` is no interpolation."""
    if isinstance(value, dict):
        return {name: literal(below) for name, below in value.items()}
    if isinstance(value, list):
        return [literal(below) for below in value]
    return INTERPOLATION.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def quote_run_folder(folder: Path) -> None:
    """Lightning names the run folder in the commands of its further processes, in double quotes and as Hydra's config has it.
    Here it gets what the quotes need."""
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        inside = QuotedString(text=str(folder.absolute()), quote=Quote.double).with_quotes()[1:-1]
        with read_write(hydra):  # type: ignore[arg-type]  # a DictConfig
            hydra.run.dir = literal(inside)
