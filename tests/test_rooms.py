"""The rooms of design: each uses only rooms below it, no files import each other in a circle, a file's name stands once."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = "commands"  # uar/X.py, each a `python -m uar.X`
ROOMS = (  # from the top; rooms of one line stand beside each other and use none of each other
    (COMMANDS,),
    ("reporting",),
    ("reviewing", "loops", "tuning"),
    ("training",),
    ("evaluation",),
    ("labels", "questions"),
    ("annotation",),
    ("acquisition",),
    ("reranking", "expansion"),
    ("llm",),
    ("pools",),
    ("retrievers",),
    ("losses",),
    ("collections",),
    ("launch",),
    ("tracking",),
    ("machine",),
    ("storage",),
    ("errors",),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def modules() -> dict[str, Path]:
    """Files of the package by dotted name; a package's `__init__` has the name of the package."""
    found = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted((ROOT / "uar").rglob("*.py"))}
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


MODULES = modules()


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names that a file imports from the package, wherever they stand in it: at its head, in a function, for types
    alone, or as text handed to `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
                base = ".".join([*parents, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def graph(sources: dict[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Modules that each module imports. `sources`: text, and whether it is a package, by name. A name taken from a package
    counts as an import of the package where it is no module of its own."""
    edges: dict[str, set[str]] = defaultdict(set)
    for module, (text, is_package) in sources.items():
        for name in imported(ast.parse(text), module, is_package):
            while name and name not in sources:
                name = name.rpartition(".")[0]
            if name and name != module:
                edges[module].add(name)
    return edges


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules of which each reaches each other (Tarjan's strongly connected components of two and more)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in order:
            visit(node)
    return found


def room_of(module: str) -> str:
    """The folder under `uar`; a file directly there is a command, but for `errors`."""
    parts = module.split(".")
    if len(parts) == 1 or (len(parts) == 2 and parts[1] != "errors" and MODULES[module].name != "__init__.py"):
        return COMMANDS
    return parts[1]


@pytest.fixture(scope="module")
def edges() -> dict[str, set[str]]:
    return graph({name: (path.read_text(encoding="utf-8"), path.name == "__init__.py") for name, path in MODULES.items()})


def test_no_files_import_each_other_in_a_circle(edges: dict[str, set[str]]) -> None:
    assert circles(edges) == []


def test_every_room_stands_in_the_order() -> None:
    assert {room_of(module) for module in MODULES} <= LEVEL.keys()


def test_a_room_uses_only_rooms_below_it(edges: dict[str, set[str]]) -> None:
    upwards = [
        f"{module} -> {other}"
        for module, others in sorted(edges.items())
        for other in sorted(others)
        if (a := room_of(module)) != (b := room_of(other)) and LEVEL[b] <= LEVEL[a]
    ]
    assert upwards == []


def test_no_command_uses_another(edges: dict[str, set[str]]) -> None:
    commands = {module for module in MODULES if room_of(module) == COMMANDS}
    assert {f"{m} -> {o}" for m in commands for o in edges.get(m, ()) if o in commands} == set()


def test_a_trained_kind_of_retriever_uses_no_other_kind(edges: dict[str, set[str]]) -> None:
    """What they share lies in `retrievers/transformer` and `retrievers`; BM25 and fusion are tools of all."""
    assert [f"{module} -> {other}" for module, other in to_kinds(edges) if KIND.match(module)] == []


def test_a_kind_of_retriever_is_known_to_its_own_folder_alone(edges: dict[str, set[str]]) -> None:
    """So that a new one is a folder and a YAML file. A model whose files say no kind is taken for a bi-encoder, and
    labelled examples are looked up by one."""
    known = {(module, KIND.findall(other)[0]) for module, other in to_kinds(edges) if not KIND.match(module)}
    assert known == {
        ("uar.retrievers.model_folder", "bi_encoder"),
        ("uar.annotation.labelled_examples", "bi_encoder"),
    }


KIND = re.compile(r"uar\.retrievers\.(?!(?:bm25|fusion|transformer)\.)(\w+)\.")


def to_kinds(edges: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Imports of what a kind's folder holds, from elsewhere."""
    assert {KIND.findall(module)[0] for module in MODULES if KIND.match(module)} >= {"bi_encoder", "promptreps", "splade"}
    pairs = [(module, other) for module, found in sorted(edges.items()) for other in sorted(found) if KIND.match(other)]
    return [(module, other) for module, other in pairs if KIND.findall(module) != KIND.findall(other)]


def test_the_name_of_a_file_stands_once_in_the_tree() -> None:
    names = Counter(p.name for m, p in MODULES.items() if p.name != "__init__.py" and room_of(m) != COMMANDS)
    assert {name: count for name, count in names.items() if count > 1} == {}


def test_imports_are_seen_wherever_they_stand() -> None:
    text = """
import uar.a
from uar.b import x
from uar import c
from . import d
from .e import y
from ..g.h import w
def f():
    from uar.f import z
if TYPE_CHECKING:
    import_module("uar.k")
"""
    names = ["uar", "uar.a", "uar.b", "uar.c", "uar.f", "uar.k", "uar.g", "uar.g.h", "uar.p", "uar.p.d", "uar.p.e", "uar.p.m"]
    sources = {name: ("", name in ("uar", "uar.p", "uar.g")) for name in names}
    seen = graph(sources | {"uar.p.m": (text, False)})["uar.p.m"]
    assert seen == {"uar.a", "uar.b", "uar.c", "uar.f", "uar.k", "uar.g.h", "uar.p.d", "uar.p.e"}
    assert graph(sources | {"uar.p": ("from .m import x\nfrom ..uar import c", True)})["uar.p"] >= {"uar.p.m"}


def test_circles_are_found_and_chains_are_none() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": {"e"}}) == [["a", "b", "c"], ["e", "f"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == []
