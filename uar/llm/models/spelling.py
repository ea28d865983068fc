"""Which of the tokens that a server lists spell a text, however it writes tokens."""

import re
from collections.abc import Sequence
from functools import lru_cache

SHOWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that GPT-2's vocabulary shows as they are
HIDDEN = sorted(set(range(0x100)) - set(SHOWN))
BYTE_LEVEL = {chr(byte): byte for byte in SHOWN} | {chr(0x100 + nth): byte for nth, byte in enumerate(HIDDEN)}
WRITTEN = {
    "▁": "(?: |▁)".encode(),
    "\N{REPLACEMENT CHARACTER}": "(?:\N{REPLACEMENT CHARACTER}|".encode() + rb"[\x80-\xff]{1,3})",  # a part of a character
}


def spelled(tokens: Sequence[str], prefix: str, target: str) -> range | None:
    """Places of the tokens that spell `target`, the first after one that ends `prefix`; None where no tokens do exactly that.

    What stands before the prefix, such as a token that begins every text, does not matter. The last token of the list may be
    one that the server wrote itself. Empty tokens before the first one are a part of it: they are the space, or the first
    bytes of the character, that is spelled with the next.
    """
    for end in (len(tokens) - 1, len(tokens)):
        found = _ending(tokens[:end], prefix.encode("utf-8", "replace"), target.encode("utf-8", "replace"))
        if found is not None:
            return range(found, end)
    return None


def _ending(tokens: Sequence[str], prefix: bytes, target: bytes) -> int | None:
    """From which token on the tokens spell the target."""
    starts = {len(target)}  # where in the target the tokens read so far may start
    for at in reversed(range(len(tokens))):
        starts = {start for end in starts for start in _starts(tokens[at], target, end)}
        if not starts:
            return None
        if 0 in starts:
            first = at
            while first and not tokens[first - 1]:
                first -= 1
            if not prefix or (first and _starts(tokens[first - 1], prefix, len(prefix))):
                return first
    return None


def _starts(token: str, text: bytes, end: int) -> list[int]:
    """Where in the text a token may start that ends at `end`."""
    longest = 3 * len(token.encode("utf-8", "replace")) + 1  # a sign for half a character may be three bytes
    pattern = _bytes_of(token)
    return [start for start in range(max(0, end - longest), end + 1) if pattern.fullmatch(text, start, end)]


@lru_cache(maxsize=65_536)
def _bytes_of(token: str) -> re.Pattern[bytes]:
    """What bytes a token may stand for: its text, with the space before it that SentencePiece's decoding takes away; or what
    `▁`, GPT-2's signs for bytes, `<0x0A>` or `bytes:\\x0a` stand for."""
    readings = [b"".join(WRITTEN.get(sign) or re.escape(sign.encode("utf-8", "replace")) for sign in token)]
    if token and not token[0].isspace():
        readings[0] = b" ?" + readings[0]
    if re.fullmatch("<0x[0-9A-Fa-f]{2}>", token):
        readings.append(re.escape(bytes.fromhex(token[3:5])))
    if token.startswith("bytes:"):
        named = re.sub(r"\\x([0-9A-Fa-f]{2})", lambda byte: chr(int(byte[1], 16)), token.removeprefix("bytes:"))
        readings.append(re.escape(named.encode("latin-1", "replace")))
    if token and BYTE_LEVEL.keys() >= set(token):
        readings.append(re.escape(bytes(BYTE_LEVEL[sign] for sign in token)))
    return re.compile(b"|".join(readings), re.DOTALL)
