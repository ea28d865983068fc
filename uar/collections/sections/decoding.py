"""The text of a file's bytes."""

import codecs

AUTO = "auto"
AS_GOOD = 0.1  # more odd signs, of all signs, than the best guess has
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def decoded(content: bytes, encoding: str = AUTO) -> tuple[str, str] | None:
    """The text and the name of its encoding: UTF-8 where it is that, else `encoding`; `auto` has charset-normalizer look for
    the encoding that makes the best text. None where none fits."""
    try:
        mark = next((name for start, name in MARKS.items() if content.startswith(start)), "utf-8")
        return content.decode(mark), "utf-8" if mark.startswith("utf-8") else mark
    except UnicodeDecodeError:
        pass
    if encoding != AUTO:
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            return None
    from charset_normalizer import from_bytes

    guesses = list(from_bytes(content))  # the one of the least odd signs first
    likely = [guess for guess in guesses if guess.chaos <= guesses[0].chaos + AS_GOOD]
    best = max(likely, key=lambda guess: guess.coherence, default=None)  # that reads most like a language
    return None if best is None else (str(best), best.encoding)
