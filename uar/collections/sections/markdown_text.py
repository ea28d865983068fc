"""Sections of Markdown, by way of the web page that it stands for."""

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from lxml.html.defs import tags
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml

from uar.collections.sections.section import Outline
from uar.collections.sections.web_page import web_page

MATTER_LINE = r"(?:[\w.][\w.-]*[ \t]*[:=].*|[ \t#\[\]}-].*|)\n"
FRONT_MATTER = re.compile(rf"\A(---|\+\+\+)[ \t]*\n(?P<lines>(?:{MATTER_LINE})*?)(?:\1|\.\.\.)[ \t]*(?:\n|\Z)")
TITLE = re.compile(r"^title[ \t]*[:=][ \t]*([\"']?)(.+?)\1[ \t]*$", re.MULTILINE)
TAG = re.compile(r"</?([a-z][a-z0-9-]*)|<[!?]", re.IGNORECASE)
OF_RAW_TEXT = {"iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"}
NAMED_BLOCK = re.compile(r"\{(\w[\w:-]*)\}")  # of MyST
WITHOUT_TEXT = {"toctree", "image", "figure", "include", "literalinclude", "mermaid", "contents", "tableofcontents"}
MARKS = re.compile(  # of what is no CommonMark
    r"\[\^[^\]\s]+\]:? ?|^\^[\w-]+$"  # a footnote
    r"|^\[![A-Z]+\]\s*|^(?:!!!|\?\?\?\+?) \w+ ?|^:::+.*"  # a note
    r"|\s*\{[#.:][^{}]*\}$"  # attributes
)
DEEPEST = 100  # blocks within each other; what lies deeper is left out
DEEP_BLOCK = "block too deep"


def markdown(text: str, outline: Outline) -> None:
    matter = FRONT_MATTER.match(text)
    title = TITLE.search(matter["lines"]) if matter else None
    parser, body = _parser(), text[matter.end() if matter else 0 :]
    tokens = parser.parse(body)
    lines = body.split("\n")
    for token, after in pairwise(tokens):
        if token.nesting == 1 and after.nesting == -1 and token.level == after.level == DEEPEST - 1 and token.map:
            outline.left_out.append((DEEP_BLOCK, "\n".join(lines[slice(*token.map)]).strip("> \n")))
    web_page(parser.renderer.render(tokens, parser.options, {}), outline, title[2] if title else "")


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": DEEPEST}).enable(["table", "strikethrough"])
    parser.add_render_rule("html_inline", _tag_or_text)
    parser.add_render_rule("fence", _code)
    parser.add_render_rule("text", lambda _, tokens, at, *__: escapeHtml(MARKS.sub("", tokens[at].content)))
    return parser


def _tag_or_text(_: Any, tokens: Sequence[Any], at: int, *__: Any) -> str:
    """What is no tag of HTML is the name of something to fill in, as in `pip install <package>`."""
    text: str = tokens[at].content
    tag = TAG.match(text)
    is_tag = tag and (not tag[1] or tag[1].lower() in (tags | {"picture"}) - OF_RAW_TEXT)
    return text if is_tag else escapeHtml(text)


def _code(_: Any, tokens: Sequence[Any], at: int, *__: Any) -> str:
    named = NAMED_BLOCK.match(tokens[at].info.strip())
    return "" if named and named[1] in WITHOUT_TEXT else f"<pre>{escapeHtml(tokens[at].content)}</pre>\n"
