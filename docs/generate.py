"""Pages of the reference, made when the site is built: options from the configs, Python from the docstrings."""

import pkgutil
from html import escape
from importlib.util import find_spec
from itertools import groupby

import mkdocs_gen_files

import uar
from uar.launch.config_reference import ConfigFile, config_files

SCRIPTS = {"train": "python train.py", "annotate": "python annotate.py"}


def page(path: str, *parts: str) -> None:
    with mkdocs_gen_files.open(path, "w") as file:
        file.write("\n\n".join(parts) + "\n")


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def in_code(text: str) -> str:
    return f"<code>{escape(text).replace('|', '&#124;')}</code>"


def heading(file: ConfigFile) -> str:
    """A choice by its name, the config of a command as the command is called."""
    if file.group or find_spec(f"uar.{file.name}") is None and file.name not in SCRIPTS:
        return file.name
    return SCRIPTS.get(file.name, f"python -m uar.{file.name}")


def of_file(file: ConfigFile) -> str:
    """A heading, what the file is for, and a table of its options."""
    told = [
        f"## {heading(file)}",
        f"```text\n{file.about}\n```" if "\npython " in file.about else cell(file.about),
    ]
    if file.target:
        told.append(f"Builds `{file.target}`.")
    if file.group and file.bases:
        told.append(f"Starts from {', '.join(f'`{base}`' for base in file.bases)}; only what differs or is new stands here.")
    if file.options:
        rows = "\n".join(f"| `{o.name}` | {in_code(o.default)} | {cell(o.meaning)} |" for o in file.options)
        told.append(f"| option | default | meaning |\n|---|---|---|\n{rows}")
    return "\n\n".join(part for part in told if part)


groups = {group: list(files) for group, files in groupby(config_files(), key=lambda file: file.group)}
for group, files in groups.items():
    name = group or "commands"
    intro = f"Chosen with `{group}=NAME`, changed with `{group}.OPTION=VALUE`." if group else "What belongs to no group."
    page(f"reference/options/{name.replace('/', '-')}.md", f"# {name}", intro, *map(of_file, files))

packages: dict[str, list[str]] = {}
for module in pkgutil.walk_packages(uar.__path__, "uar."):
    if not module.ispkg:
        packages.setdefault(module.name.rpartition(".")[0], []).append(module.name)
for package, modules in sorted(packages.items()):
    page(f"reference/python/{package}.md", f"# {package}", *(f"::: {module}" for module in modules))

pages = {group or "commands": f"options/{(group or 'commands').replace('/', '-')}.md" for group in groups}
listed = {name: ", ".join(f"`{file.name}`" for file in groups["" if name == "commands" else name]) for name in pages}
page(
    "reference/index.md",
    "# Reference",
    "Every option of every config, with its default and its meaning, and every public class and function. Both are made from "
    "the source when this site is built.",
    "## Options",
    "\n".join(f"- [{name}]({path}): {listed[name]}" for name, path in pages.items()),
    "## Python",
    "\n".join(f"- [{package}](python/{package}.md)" for package in sorted(packages)),
)
page(
    "reference/SUMMARY.md",
    "\n".join(
        [
            "- [Reference](index.md)",
            "- Options",
            *(f"    - [{name}]({path})" for name, path in pages.items()),
            "- Python",
            *(f"    - [{package}](python/{package}.md)" for package in sorted(packages)),
        ]
    ),
)
