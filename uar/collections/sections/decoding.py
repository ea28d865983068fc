"""The text of a file's bytes."""

import codecs
import os

AUTO, WESTERN = "auto", "cp1252"
AS_GOOD = 0.1  # more odd signs, of all signs, than the best guess has
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def readable(name: str) -> str:
    """A file's name, with a sign in the place of what is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def decoded(content: bytes, encoding: str = AUTO) -> tuple[str, str] | None:
    """The text and the name of its encoding: UTF-8 where it is that, else `encoding`; `auto` has charset-normalizer look for
    the encoding that makes the best text. None where none fits. UTF-16 without a mark is bytes of UTF-8 too, zeros among
    them, which no text has."""
    mark = next((name for start, name in MARKS.items() if content.startswith(start)), None)
    if mark or b"\0" not in content:
        try:
            return content.decode(mark or "utf-8"), mark if mark == "utf-16" else "utf-8"
        except UnicodeDecodeError:
            pass
    if encoding != AUTO:
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            return None
    from charset_normalizer import from_bytes

    guesses = list(from_bytes(content))
    if not guesses:
        return None
    best = guesses[0]  # of the fewest odd signs
    western = next((guess for guess in guesses if WESTERN in guess.could_be_from_charset), best)
    if western.coherence > best.coherence and western.chaos <= best.chaos + AS_GOOD:
        best = western  # by far the most common one, and the text reads more like a language
    return str(best), WESTERN if WESTERN in best.could_be_from_charset else codecs.lookup(best.encoding).name
