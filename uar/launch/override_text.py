"""Any text as a value of Hydra's command line and configs, which give meaning to quotes, backslashes and `${`."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import read_write

SEARCHPATH = "hydra.searchpath"
CONFIG_DIR = ("--config-dir", "-cd")
WITH_VALUE = (*CONFIG_DIR, "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--experimental-rerun")
INTERPOLATION = re.compile(r"(\\*)\$\{")
TEXTS = {  # options whose value is one text, by command
    "report": ("baseline", "runs", "title"),
    "dashboard": ("runs", "title"),
    "evaluate": ("baseline",),
}
MEASURE = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|([\w.]+)\([^()]*\)(?:@\d+)?""")  # in quotes, or with parameters
PLAIN = re.compile(r"[A-Za-z_/][\w./:@%+-]*")
WORDS = ("null", "true", "false", "nan", "inf")  # that Hydra takes for values


def quoted(text: str) -> str:
    """As an override's value, in quotes."""
    return QuotedString(text=literal(text), quote=Quote.single).with_quotes()


def overrides_of(words: Sequence[str]) -> list[str]:
    """Overrides among the words of a command line. A folder of configs (--config-dir) is one too, of `hydra.searchpath`."""
    found, values = [], iter(words)
    for word in values:
        flag, equals, value = word.partition("=")
        if not word.startswith("-"):
            found.append(word)
        elif flag in WITH_VALUE:
            value = value if equals else next(values, "")
            found += [f"{SEARCHPATH}=[{quoted(f'file://{Path(value).absolute()}')}]"] if flag in CONFIG_DIR else []
    return found


def options_of(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Overrides of a command line, each with the option, or the package of the group, that it sets."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [(one.input_line or "", one.package or one.key_or_group) for one in parsed]


def as_typed(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Overrides of a command with quotes around what Hydra would read as a list of jobs or as a function: names of rows and
    folders (`baseline=human, contrastive`) and measures with parameters (`measures=[RBP(p=0.8)]`). Sweeps (`-m`) keep their
    lists of names."""
    one_job = not {"-m", "--multirun"} & set(overrides)
    texts = TEXTS.get(config_name, ()) if one_job else ()
    found = []
    for override in overrides:
        name, equals, value = override.partition("=")
        if name in texts and value not in ("", "null") and value[0] not in "'\"[{" and "${" not in value:
            value = quoted(value)
        elif name == "measures":
            value = MEASURE.sub(_quoted_measure, value)
        found.append(f"{name}{equals}{value}")
    return found


def _quoted_measure(found: re.Match[str]) -> str:
    in_quotes, name = found.groups()
    return found[0] if in_quotes or name in create_functions().functions else quoted(found[0])


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
