"""Sections of an HTML page, without its navigation."""

from collections.abc import Sequence
from html.parser import HTMLParser

from uar.collections.sections.section import Outline

SKIPPED = {"script", "style", "noscript", "template", "svg", "nav", "footer", "aside", "form", "button", "select"}
HEADINGS = {f"h{level}": level for level in range(1, 7)}
INLINE = {
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "dfn", "em", "font", "i", "kbd", "label", "mark", "q", "s", "samp",
    "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
}  # fmt: skip
EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
SIGN_OF_LINK = "¶"  # at headings


class _Reader(HTMLParser):
    """(level, text) blocks of the page, level 0 for a paragraph; those of `main` or `article` apart, where there is one."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.every: list[tuple[int, str]] = []
        self.main: list[tuple[int, str]] = []
        self._text: list[str] = []
        self._level = 0
        self._skipped: list[str] = []  # the tag that is skipped, once for each of its name that is open in it
        self._in_main: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        role = dict(attrs).get("role")
        if self._skipped:
            self._skipped += [tag] if tag == self._skipped[0] else []
        elif tag in SKIPPED or role in ("navigation", "search", "contentinfo"):
            self._end()
            self._skipped += [] if tag in EMPTY else [tag]
        elif tag == "title":
            self._in_title = True
        elif tag not in INLINE:
            self._end()
            self._level = HEADINGS.get(tag, 0)
            if tag in ("main", "article") or role == "main" or (self._in_main and tag == self._in_main[0]):
                self._in_main.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            self._skipped = self._skipped[:-1] if tag == self._skipped[0] else self._skipped
        elif tag == "title":
            self._in_title = False
        elif tag not in INLINE:
            self._end()
            if self._in_main and tag == self._in_main[-1]:
                self._in_main.pop()

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif not self._skipped:
            self._text.append(data)

    def close(self) -> None:
        super().close()
        self._end()

    def _end(self) -> None:
        text = "".join(self._text).strip().removesuffix(SIGN_OF_LINK).strip()
        if text:
            self.every.append((self._level, text))
            if self._in_main:
                self.main.append((self._level, text))
        self._text, self._level = [], 0


def web_page(text: str, outline: Outline) -> None:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    blocks = reader.main or reader.every
    title = " ".join(reader.title.split())
    if title and not any(level == 1 for level, _ in blocks):
        outline.heading(1, title)
    for level, found in blocks:
        if level:
            outline.heading(level, " ".join(found.split()))
        else:
            outline.paragraph(found)
