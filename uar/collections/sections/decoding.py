"""The text of a file's bytes."""

import codecs
import os
from typing import NamedTuple

AUTO, WESTERN, UTF_8 = "auto", "cp1252", "utf-8"
AS_GOOD = 0.1  # more odd signs, of all signs, than the best guess has
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
ESCAPE, KOREAN = b"\x1b$", b"\x1b$)C"
NUL, ALTERNATE = b"\0", 0.5  # of all pairs of bytes


class Decoded(NamedTuple):
    """`nuls`: signs that were taken out, since no text has them."""

    text: str
    encoding: str
    nuls: int = 0


def readable(name: str) -> str:
    """A file's name, with a sign in the place of what is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def decoded(content: bytes, encoding: str = AUTO) -> Decoded | None:
    """The text and the name of its encoding: what its mark, its NULs or its escape sequences say, UTF-8 where it is that, else
    `encoding`; `auto` has charset-normalizer look for the encoding that makes the best text. None where none fits."""
    mark = next((name for start, name in MARKS.items() if content.startswith(start)), None)
    for name in (mark or _without_mark(content), UTF_8, None if encoding == AUTO else encoding):
        if name:
            try:
                text = content.decode(name)
            except UnicodeDecodeError:
                continue
            return _without_nuls(text, UTF_8 if name == "utf-8-sig" else name)
    return _guessed(content) if encoding == AUTO else None


def _without_mark(content: bytes) -> str | None:
    """What is UTF-8 too: UTF-16 of mostly Latin letters, with a NUL beside each, and the escape sequences of ISO 2022."""
    if ESCAPE in content:
        return "iso2022_kr" if KOREAN in content else "iso2022_jp_2"
    first, second = content[::2].count(NUL), content[1::2].count(NUL)
    if max(first, second) < ALTERNATE * len(content) / 2 or min(first, second):
        return None
    return "utf-16-be" if first else "utf-16-le"


def _without_nuls(text: str, encoding: str) -> Decoded:
    return Decoded(text.replace("\0", ""), encoding, text.count("\0"))


def _guessed(content: bytes) -> Decoded | None:
    from charset_normalizer import from_bytes

    guesses = list(from_bytes(content))
    if not guesses:
        return None
    best = guesses[0]  # of the fewest odd signs
    western = next((guess for guess in guesses if WESTERN in guess.could_be_from_charset), best)
    if western.coherence > best.coherence and western.chaos <= best.chaos + AS_GOOD:
        best = western  # by far the most common one, and the text reads more like a language
    return _without_nuls(str(best), WESTERN if WESTERN in best.could_be_from_charset else codecs.lookup(best.encoding).name)
