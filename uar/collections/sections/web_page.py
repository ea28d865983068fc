"""Sections of an HTML page, without its navigation."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from lxml import etree

from uar.collections.sections.plain_text import LINE_OF_CONTENTS
from uar.collections.sections.section import Outline

NEVER_TEXT = {"head", "script", "style", "title"}
SKIPPED = {
    "aside", "audio", "button", "canvas", "datalist", "footer", "iframe", "nav", "noscript", "object", "select", "svg",
    "template", "textarea", "video",
}  # fmt: skip
SKIPPED_ROLES = {"contentinfo", "navigation", "search"}
NOT_SHOWN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)  # of a style
HIDDEN_CODE = "boring"  # class of lines of code that mdBook's pages hide
OF_CONTENTS = {"doc-toc", "table-of-contents", "toc"}  # class, id or role
HEADING_OF_CONTENTS = re.compile(r"(?:table of )?contents|on this page|toc", re.IGNORECASE)
HEADINGS = {f"h{level}": level for level in range(1, 7)}
INLINE = {
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img", "input",
    "ins", "kbd", "label", "mark", "picture", "q", "ruby", "s", "samp", "small", "source", "span", "strike", "strong", "sub",
    "sup", "time", "tt", "u", "var", "wbr",
}  # fmt: skip
CELLS = {"td", "th"}
IN_A_ROW = INLINE | CELLS | {"br", "div", "p"}  # of a table of data; a layout's holds more
SIGN_OF_LINK = re.compile(r"[#§¶\uf0c1🔗]?")  # at headings
MAIN = "self::main or self::article or @role='main'"
REST, BESIDE = "rest of a page", "text beside the main part of a page"
JOINED = {"li", "tr"}
ITEM = re.compile(r"- |\d+\. ")
BREAK, CELL = "\n", " | "
LEADING_CELLS = re.compile(r"\A(?:\|\s*)+")  # empty ones


class _Block(NamedTuple):
    """`level`: of a heading, 0 for a paragraph; `links`: whether all its words are in links."""

    level: int
    text: str
    links: bool


class _Blocks:
    """The blocks of an element. The items of a list are one paragraph; so are the rows of a table, and a term and its
    definition. `skipped`: tags, and elements."""

    def __init__(self, element: Any, skipped: set[Any]) -> None:
        self.found: list[_Block] = []
        self._text: list[str] = []
        self._links = True
        self._in_links = 0
        self._mark = ""  # of the item that begins
        self._number: dict[Any, int] = {}  # of the item that comes next, by list
        self._kind = ""  # of the last paragraph: that of the tag which it was, where the next may join it
        self._whole: Any = None  # the heading or row that is open, whose blocks are one
        self._preformatted = 0
        walk = etree.iterwalk(element, events=("start", "end"))
        left_out: Any = None
        for event, at in walk:
            if event == "end":
                self._ended(at, at is not left_out)
                self._add(at.tail if at is not element else None)
            elif _is_skipped(at, skipped):
                left_out = at
                walk.skip_subtree()
            else:
                self._started(at)
                self._add(at.text)
        self._end("")

    def _started(self, element: Any) -> None:
        tag = element.tag
        self._in_links += tag == "a"
        if tag == "br":
            self._text.append(BREAK)
        elif self._whole is not None:
            self._text.append("" if tag in INLINE else CELL if tag in CELLS else " ")
        elif tag not in INLINE:
            self._end("")
            self._preformatted += tag == "pre"
            self._mark = self._mark_of(element) if tag == "li" else self._mark
            if tag in HEADINGS or (tag == "tr" and all(inner.tag in IN_A_ROW for inner in element.iterdescendants())):
                self._whole = element

    def _ended(self, element: Any, started: bool) -> None:
        tag = element.tag
        self._in_links -= started and tag == "a"
        if self._whole is None and tag not in INLINE and tag != "br":
            self._end(tag)
            self._preformatted -= started and tag == "pre"
            self._mark = "" if tag == "li" else self._mark
        elif self._whole is element:
            self._whole = None
            self._end(tag)
        elif tag not in INLINE:
            self._text.append(" ")

    def _mark_of(self, item: Any) -> str:
        listed = item.getparent()
        if listed is None or listed.tag != "ol":
            return "- "
        start = listed.get("start", "")
        number = self._number.get(listed, int(start) if start.isdecimal() else 1)
        self._number[listed] = number + 1
        return f"{number}. "

    def _add(self, text: str | None) -> None:
        if text:
            self._links = self._links and (self._in_links > 0 or not re.search(r"\w", text))
            self._text.append(text if self._preformatted else re.sub(r"\s+", " ", text))

    def _end(self, tag: str) -> None:
        """`tag`: of what ends here; empty where something begins."""
        text = LEADING_CELLS.sub("", "".join(self._text).strip())
        links, self._text, self._links = self._links, [], True
        if not text:
            return
        if not self._preformatted:
            text = re.sub(r" *\n *", "\n", re.sub(" +", " ", text))
        level, kind = HEADINGS.get(tag, 0), "li" if self._mark else tag
        if level or not (self._kind == "dt" or (kind == self._kind and kind in JOINED)):
            self.found.append(_Block(level, self._mark + text, links))
        else:
            before = self.found[-1]
            self.found[-1] = _Block(0, f"{before.text}\n{self._mark}{text}", before.links and links)
        self._kind, self._mark = kind, ""


def _is_skipped(element: Any, skipped: set[Any]) -> bool:
    return (
        element.tag in skipped
        or element in skipped
        or element.get("role") in SKIPPED_ROLES
        or element.get("hidden") is not None
        or NOT_SHOWN.search(element.get("style", "")) is not None
        or (element.tag == "span" and HIDDEN_CODE in element.get("class", "").split())
        or not OF_CONTENTS.isdisjoint(" ".join(map(element.get, ("class", "id", "role"), ("",) * 3)).casefold().split())
        or (element.tag == "a" and not len(element) and bool(SIGN_OF_LINK.fullmatch((element.text or "").strip())))
    )


def _never_closed(text: str) -> set[str]:
    """Tags of which some are never closed: the parser has them hold all that follows."""
    opened = {tag: len(re.findall(rf"<{tag}\b(?![^<>]*/>)", text, re.IGNORECASE)) for tag in SKIPPED}
    return {tag for tag, times in opened.items() if times > len(re.findall(rf"</{tag}\s*>", text, re.IGNORECASE))}


def _without_contents(blocks: list[_Block], outline: Outline) -> Iterator[_Block]:
    """A heading of contents is none of what follows, and a list of links under it is no text."""
    in_contents = False
    for block in blocks:
        was_in, in_contents = in_contents, bool(block.level and HEADING_OF_CONTENTS.fullmatch(block.text.strip(" :\n")))
        if was_in and block.links and ITEM.match(block.text):
            outline.left_out += ((LINE_OF_CONTENTS, line) for line in block.text.splitlines())
        elif not in_contents:
            yield block


def web_page(text: str, outline: Outline, title: str = "") -> None:
    """`title`: of a page that has no element for it."""
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    root = etree.fromstring(text.encode("utf-8"), parser) if text.strip() else None
    if root is None:
        return
    if cut := parser.error_log.filter_types([etree.ErrorTypes.ERR_RESOURCE_LIMIT]):
        outline.left_out.append((REST, f"tags stand deeper in each other than can be read, from line {cut[0].line} on"))
    skipped = NEVER_TEXT | (SKIPPED - _never_closed(text))
    parts = root.xpath(f"//*[({MAIN}) and not(ancestor::*[{MAIN}])]")
    blocks = [block for part in parts for block in _Blocks(part, skipped).found]
    others = _Blocks(root, skipped.union(parts)).found
    if not blocks:
        blocks = others
    elif beside := " ".join(block.text for block in others if not block.links):
        outline.left_out.append((BESIDE, beside))
    title = title or " ".join(root.xpath("string(//title[not(ancestor::svg)])").split())
    outline.name = title or outline.name
    top = next((text for level, text, _ in blocks if level), "")
    if title and all(block.level != 1 for block in blocks) and " ".join(top.split()).casefold() not in title.casefold():
        outline.heading(1, title)
    for level, found, _ in _without_contents(blocks, outline):
        if level:
            outline.heading(level, " ".join(found.split()))
        else:
            outline.paragraph(found)
