"""Any text as a value of Hydra's command line and configs, which give meaning to quotes, backslashes and `${`."""

import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import read_write

INTERPOLATION = re.compile(r"(\\*)\$\{")


def quoted(text: str) -> str:
    """As an override's value, in quotes."""
    return QuotedString(text=literal(text), quote=Quote.single).with_quotes()


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
