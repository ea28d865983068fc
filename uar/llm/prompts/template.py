"""Loading, checking and rendering of prompt files.

A chat prompt has `turns`, a list of {role, content}; a turn with `each: passages` is rendered once a passage, sees
`number` (from 1) and `passage`, and may have a `reply`, the assistant's turn after each. Under `shared_prefix` it may have
the turns that its task takes where the passages stand first, in a prefix that all stages of a question share (itself a
prompt file). `replies`, of prompts that grade one passage: see `uar.annotation.reply_form`. A text prompt has `prefix` and
`target`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import yaml

from uar.collections.images import Image
from uar.errors import DataError, UserError
from uar.llm.pictured import Pictured, images_of
from uar.llm.record import Messages
from uar.storage.files import digest

PACKAGE = Path(__file__).parents[2]
ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
LOOP = frozenset({"number", "passage"})


class Template:
    """A compiled template. One of texts and names alone, as most are, needs none of Jinja's contexts to be rendered."""

    def __init__(self, source: str) -> None:
        self._template = ENVIRONMENT.from_string(source)
        parsed = ENVIRONMENT.parse(source)
        self.variables = jinja2.meta.find_undeclared_variables(parsed)
        nodes = [node for output in parsed.body for node in getattr(output, "nodes", [None])]
        plain = all(isinstance(node, jinja2.nodes.TemplateData | jinja2.nodes.Name) for node in nodes)
        self._format = "".join(map(_formatted, nodes)) if plain else None

    def render(self, values: Mapping[str, Any]) -> str:
        """UndefinedError of jinja2 where a value is missing."""
        if self._format is None:
            return self._template.render(values)
        try:
            return self._format.format_map(values)
        except KeyError:
            return self._template.render(values)


def _formatted(node: Any) -> str:
    """A text or a name of a template, as `str.format` takes it."""
    if isinstance(node, jinja2.nodes.Name):
        return f"{{{node.name}!s}}"
    return str(node.data).replace("{", "{{").replace("}", "}}")


_compiled = cache(Template)


@dataclass(frozen=True)
class Turn:
    role: str
    content: str
    each: bool = False
    reply: str | None = None


@dataclass(frozen=True)
class ChatPrompt:
    """`replies`: what the LLM is to reply, in the words of whoever reads it, where prompts differ in that. `guideline`: a text
    for the system turn, after what the prompt itself has there; no template."""

    name: str
    hash: str
    turns: tuple["Turn", ...]
    replies: Any = "numbers"
    guideline: str = ""

    def render(self, acknowledge: bool = True, image: Image | None = None, **values: Any) -> Messages:
        """(role, content) messages; `acknowledge=False` leaves out the replies to single passages. `image`: shown in the first
        user's turn that has the `query`; UserError where none has it."""
        messages: list[tuple[str, str]] = []
        for turn in self.turns:
            template = _compiled(turn.content)
            if not turn.each:
                text = template.render(values)
                if image is not None and turn.role == "user" and "query" in template.variables:
                    text, image = Pictured(text, image), None
                messages.append((turn.role, text))
                continue
            reply = _compiled(turn.reply) if turn.reply is not None and acknowledge else None
            own = dict(values)
            for own["number"], own["passage"] in enumerate(values["passages"], start=1):
                messages.append((turn.role, template.render(own)))
                if reply is not None:
                    messages.append(("assistant", reply.render(own)))
        if image is not None:
            raise UserError(
                f"prompt {self.name}: no user's turn has {{{{ query }}}}, where the question's image is shown; add it to one"
            )
        if self.guideline:
            messages.insert(int(messages[0][0] == "system"), ("system", self.guideline))
        return _merge_neighbours(messages)

    def with_guideline(self, text: str) -> "ChatPrompt":
        """Another prompt, by its hash too, unless the text is empty."""
        return replace(self, hash=digest(self.hash, text), guideline=text) if text else self


@dataclass(frozen=True)
class TextPrompt:
    name: str
    hash: str
    prefix: str
    target: str

    def render(self, **values: Any) -> tuple[str, str]:
        """(prefix, target)."""
        return _compiled(self.prefix).render(values), _compiled(self.target).render(values)


def load_chat(name: str, variables: frozenset[str], prefix: str | None = None) -> ChatPrompt:
    """A packaged prompt by name or a file by path, as it is now. `variables`: what the stage supplies; others are refused.
    With `prefix`, another prompt's name, it is that prompt's turns and then this one's `shared_prefix` turns."""
    return _chat(*_file(name), variables, None if prefix is None else load_chat(prefix, variables))


@cache
def _chat(path: Path, text: bytes, variables: frozenset[str], opening: ChatPrompt | None) -> ChatPrompt:
    content = _content(path, text)
    if opening is None:
        turns, replies = _turns(path, content, "turns", variables), content.get("replies", "numbers")
        return ChatPrompt(content["name"], digest(content), turns, replies)
    turns = opening.turns + _turns(path, content, "shared_prefix", variables)
    return ChatPrompt(content["name"], digest(opening.hash, content), turns)


def _turns(path: Path, content: Mapping[str, Any], key: str, variables: frozenset[str]) -> tuple[Turn, ...]:
    turns = content.get(key)
    if not isinstance(turns, list) or not turns:
        needed = "" if key == "turns" else " for layout=shared_prefix"
        raise DataError(path, f"a chat prompt needs `{key}`, a list of {{role, content}}{needed}")
    checked: list[Turn] = []
    for row in turns:
        if not isinstance(row, Mapping) or set(row) - {"role", "content", "each", "reply"}:
            raise DataError(path, f"turn {row!r}; allowed keys: role, content, each, reply")
        if row.get("each", "passages") != "passages":
            raise DataError(path, f"each: {row['each']!r}; a turn can be repeated for `passages` only")
        if not isinstance(row.get("reply", ""), str) or ("reply" in row and "each" not in row):
            raise DataError(path, f"reply: {row['reply']!r}; a text is needed, in a turn with `each: passages`")
        turn = Turn(row.get("role", ""), str(row.get("content", "")), "each" in row, row.get("reply"))
        if turn.role not in {"system", "user", "assistant"}:
            raise DataError(path, f"role {turn.role!r}; allowed: system, user, assistant")
        _check(path, turn.content + (turn.reply or ""), variables, content, LOOP if turn.each else frozenset())
        checked.append(turn)
    return tuple(checked)


def load_text(name: str, variables: frozenset[str]) -> TextPrompt:
    """A packaged prefix/target prompt by name or a file by path, as it is now, checked like `load_chat`."""
    return _text(*_file(name), variables)


@cache
def _text(path: Path, text: bytes, variables: frozenset[str]) -> TextPrompt:
    content = _content(path, text)
    for key in ("prefix", "target"):
        if not isinstance(content.get(key), str):
            raise DataError(path, f"a likelihood prompt needs `{key}`, a string")
        _check(path, content[key], variables, content)
    return TextPrompt(content["name"], digest(content), content["prefix"], content["target"])


@cache
def packaged(folder: str) -> dict[str, Path]:
    """The YAML files of all folders of that name in the package, by their stems: each room keeps its own."""
    return {path.stem: path for path in sorted(PACKAGE.rglob(f"{folder}/*.yaml"), key=lambda p: p.stem)}


def _file(name: str) -> tuple[Path, bytes]:
    path = packaged("prompts").get(name, Path(name))
    if not path.is_file():
        raise DataError(name, f"no such prompt; give a YAML file or one of {', '.join(packaged('prompts'))}")
    return path, path.read_bytes()


def content_hash(name: str, folder: str = "prompts") -> str:
    """Hash of what a packaged YAML file, or one by path, holds: not of its name or comments."""
    path = packaged(folder).get(name, Path(name))
    return digest(parsed_yaml(path, path.read_bytes()))


def _content(path: Path, text: bytes) -> dict[str, Any]:
    content = parsed_yaml(path, text)
    names = content.get("variables") if isinstance(content, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(path, "a prompt needs `name` and `variables`, the list of variables that it uses")
    return {"name": path.stem, **content}


def parsed_yaml(path: Path, text: bytes) -> Any:
    """What the text of a YAML file holds; DataError where it is broken."""
    try:
        return yaml.safe_load(text.decode("utf-8"))
    except yaml.YAMLError as error:
        raise DataError(path, f"broken YAML ({' '.join(str(error).split())})") from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _check(
    path: Path, source: str, supplied: frozenset[str], content: Mapping[str, Any], loop: frozenset[str] = frozenset()
) -> None:
    try:
        used = jinja2.meta.find_undeclared_variables(ENVIRONMENT.parse(source))
    except jinja2.TemplateSyntaxError as error:
        raise DataError(path, f"broken template ({error.message})") from error
    declared = set(content["variables"])
    if declared - supplied:
        raise DataError(path, f"declares {sorted(declared - supplied)}; this stage supplies {sorted(supplied)}")
    if used - declared - loop:
        raise DataError(path, f"uses {sorted(used - declared)} without declaring it under `variables`")


def _merge_neighbours(messages: list[tuple[str, str]]) -> Messages:
    """Join neighbouring turns of one role, since chat templates may ask for alternating roles."""
    merged: list[tuple[str, str]] = []
    for role, text in messages:
        if merged and merged[-1][0] == role:
            merged[-1] = (role, _joined(merged[-1][1], text))
        else:
            merged.append((role, text))
    return tuple(merged)


def _joined(first: str, second: str) -> str:
    """Two texts of one turn, of which one may be shown with an image."""
    images = images_of([("", first), ("", second)])
    text = f"{first}\n{second}"
    return Pictured(text, images[0]) if images else text
