"""Every option of every config file, with its default and its meaning, read from the YAML and its comments."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from uar.launch.resolvers import CONF

HIDDEN = {"defaults", "hydra", "_target_", "_partial_", "_convert_"}
COMMENT = re.compile(r"\s*#\s?(.*)")


@dataclass(frozen=True)
class Option:
    """`name`: dotted, within its file. `default`: as the file spells it. `meaning`: the comment behind or above it, else that
    of the same option in a file that it starts from, in another file of the folder, or of the one that a file over several
    groups sets; empty where there is none."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class ConfigFile:
    """`group`: the folder, empty for a command's own file. `about`: the comment at its head, as lines. `bases`: files whose
    options it has too. `target`: what it builds."""

    group: str
    name: str
    about: str
    target: str
    bases: tuple[str, ...]
    options: tuple[Option, ...]


@cache
def config_files() -> tuple[ConfigFile, ...]:
    """All files of `conf` in order of group and name, read once; options without a comment take over the meaning of their
    namesakes."""
    paths = sorted(CONF.rglob("*.yaml"), key=lambda p: (str(p.parent.relative_to(CONF)), p.stem))
    return _explained([_read(path, CONF) for path in paths])


def files_with(folders: Sequence[Path], taken: Iterable[tuple[str, str]]) -> dict[tuple[str, str], ConfigFile]:
    """By group and name the files of `conf`, and of one's own `folders` those `taken`, with what they start from."""
    files = {(file.group, file.name): file for file in config_files()}
    wanted = [one for one in taken if one not in files]
    for group, name in wanted:
        place = next((folder for folder in folders if (folder / group / f"{name}.yaml").is_file()), None)
        if place is not None and (group, name) not in files:  # of the same name, that of `conf` is taken
            files[group, name] = _read(place / group / f"{name}.yaml", place)
            wanted += [_named(group, base)[0] for base in files[group, name].bases]
    return {(file.group, file.name): file for file in _explained(list(files.values()))}


def _explained(files: Sequence[ConfigFile]) -> tuple[ConfigFile, ...]:
    known = {(f.group, o.name): o.meaning for f in reversed(files) for o in f.options if o.meaning}
    anywhere = {f"{group}.{name}" if group else name: meaning for (group, name), meaning in known.items()}
    by_name = {(file.group, file.name): file for file in files}

    def meaning(file: ConfigFile, option: Option) -> str:
        based = meaning_of(by_name, file.group, file.name, option.name)
        return based or known.get((file.group, option.name)) or anywhere.get(option.name, "")

    def explained(file: ConfigFile) -> ConfigFile:
        return replace(file, options=tuple(replace(o, meaning=meaning(file, o)) for o in file.options))

    return tuple(explained(file) for file in files)


def meaning_of(files: Mapping[tuple[str, str], ConfigFile], group: str, name: str, option: str) -> str:
    """Of an option in a file, or else in those that the file starts from; empty where none has it."""
    known = files.get((group, name))
    if known is None:
        return ""
    own = next((o.meaning for o in known.options if o.name == option), "")
    return own or next(filter(None, (_of_base(files, group, base, option) for base in known.bases)), "")


def _of_base(files: Mapping[tuple[str, str], ConfigFile], group: str, base: str, option: str) -> str:
    """`base`: a name in the same folder, or a path from the root; what stands behind an @ is put before its options' names."""
    (folder, name), package = _named(group, base)
    if package and not option.startswith(f"{package}."):
        return ""
    return meaning_of(files, folder, name, option.removeprefix(f"{package}.") if package else option)


def _named(group: str, base: str) -> tuple[tuple[str, str], str]:
    """Group and name of the file that an entry of a file's defaults names, and the package that it puts it in."""
    place, _, package = base.partition("@")
    folder, _, name = place.strip("/").rpartition("/")
    return (folder if base.startswith("/") else group, name), package


def _read(path: Path, conf: Path) -> ConfigFile:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = list(root.value) if isinstance(root, yaml.MappingNode) else []
    top = {key.value: value for key, value in entries}
    group = str(path.parent.relative_to(conf))
    head = next((at for at, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return ConfigFile(
        group="" if group == "." else group,
        name=path.stem,
        about="\n".join(line.lstrip("# ") for line in lines[:head] if "@package" not in line),
        target=top["_target_"].value if "_target_" in top else "",
        bases=tuple(_bases(top.get("defaults"))),
        options=tuple(_options(entries, lines, "")),
    )


def _bases(defaults: yaml.Node | None) -> Iterator[str]:
    for item in defaults.value if defaults is not None else ():
        if isinstance(item, yaml.ScalarNode) and item.value != "_self_":
            yield item.value


def _options(entries: Sequence[tuple[yaml.Node, yaml.Node]], lines: Sequence[str], prefix: str) -> Iterator[Option]:
    for key, value in entries:
        if key.value in HIDDEN:
            continue
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            yield from _options(value.value, lines, f"{name}.")
            continue
        start, end = value.start_mark, value.end_mark
        default = " ".join(lines[start.line][start.column :].split()) if end.line != start.line else ""
        default = default or lines[start.line][start.column : end.column]
        yield Option(name, default or "null", _comment(lines, start.line, end) or _above(lines, key.start_mark.line))


def _comment(lines: Sequence[str], line: int, end: yaml.Mark) -> str:
    found = COMMENT.match(lines[line][end.column if end.line == line else len(lines[line]) :])
    return found[1].strip() if found else ""


def _above(lines: Sequence[str], line: int) -> str:
    """Comment lines right above an option, unless they are the head of the file."""
    start = line
    while start > 0 and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return " ".join(text.strip().lstrip("# ") for text in lines[start:line]) if start > 0 else ""
