"""The normaliser of MS MARCO question answering, version 1: lower case, one space between tokens, punctuation a token of
its own.

The official evaluation (github.com/microsoft/MSMARCO-Question-Answering, ms_marco_eval.py) takes spaCy's English tokens,
lower-cases and joins them. These are its rules for words in plain text, written anew: marks are taken off both ends of a
word, words are parted at hyphens, dashes and slashes, contractions as in `do n't` and `it 's`; abbreviations keep their
full stop. Smileys, and contractions written without an apostrophe, are left whole.
"""

import re
from functools import lru_cache

NAME = "normaliser of MS MARCO QA, version 1"

LETTER = r"[^\W\d_]"
QUOTES = "'\"”“`‘´’‚„»«"
MARKS = "…,:;!?¿¡()\\[\\]{}<>_#*&·" + QUOTES
CURRENCY = "$£€¥₹₽₩"
UNITS = "km|km²|m|m²|m³|cm|mm|ha|µm|nm|yd|in|ft|kg|g|mg|lb|oz|t|m/s|km/h|kmh|mph|hPa|Pa|mbar|mb|MB|kb|KB|gb|GB|tb|TB|T|G|M|K|%"
MONTHS = "jan feb mar apr jun jul aug sep sept oct nov dec"
STATES = (
    "ala ariz ark calif colo conn del fla ga ia id ill ind kan kans ky la mass md mich minn miss mo mont neb nebr nev okla "
    "ore pa tenn va wash wis"
)
TITLES = "adm bros co corp dr gen gov inc jr ltd messrs mr mrs ms mt prof rep rev sen st"
WHOLE = frozenset(f"{word}.".capitalize() for word in f"{MONTHS} {STATES} {TITLES}".split()) | {
    "a.m.", "p.m.", "e.g.", "i.e.", "E.g.", "I.e.", "E.G.", "I.E.", "Ph.D.", "vs.", "D.C.", "N.C.", "N.D.", "N.H.", "N.J.",
    "N.M.", "N.Y.", "S.C.", "and/or", "'s", "’s", "'S", "''", *(f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyz"),
}  # fmt: skip

PREFIX = re.compile(rf"\.\.+|US\$|[{MARKS}{re.escape(CURRENCY)}§%=—–°™®©]|\+(?!\d)")
SUFFIX = re.compile(
    rf"(?:\.\.+|['’][sS]|[{MARKS}—–°™®©]|(?<=\d)\+|(?<=\d)[{re.escape(CURRENCY)}]|(?<=\d)(?:{UNITS})"
    rf"|(?<=[\da-zß-öø-ÿ%²\-+{QUOTES})\]*])\.|(?<=°[FCKfck])\.|(?<=[A-ZÀ-ÖØ-Þ][A-ZÀ-ÖØ-Þ])\.)$"
)
INFIX = re.compile(
    rf"(\.\.+|…|[°™®©]|(?<=\d)[+\-*^](?=[\d-])|(?<=[a-zß-öø-ÿ{QUOTES}])\.(?=[A-ZÀ-ÖØ-Þ{QUOTES}])"
    rf"|(?<={LETTER}),(?={LETTER})|(?<={LETTER}|\d)(?:--|---|[-–—~])(?={LETTER})|(?<={LETTER}|\d)[:<>=/](?={LETTER}))"
)
CONTRACTION = re.compile(
    r"((?:do|does|did|is|are|was|were|has|have|had|ca|wo|would|could|should|must|need|might|ai|sha|dare|may|ought))(n['’]t)"
    r"|((?:i|you|he|she|it|we|they|who|what|where|when|why|how|there|that|this|those|these))(['’](?:m|re|ve|ll|d))"
    r"|(can)(not)|(\d{1,2})([ap]\.?m\.?)",
    re.IGNORECASE,
)
URL = re.compile(r"(?:https?://|www\.)\S+|[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov)(?:/\S*)?")


def normalise(text: str) -> str:
    """A text as BLEU of MS MARCO question answering counts it."""
    return " ".join(token.lower() for word in text.split() for token in _tokens(word))


@lru_cache(maxsize=100_000)
def _tokens(word: str) -> tuple[str, ...]:
    before: list[str] = []
    after: list[str] = []
    while word:
        if word in WHOLE:
            break
        parted = CONTRACTION.fullmatch(word)
        if parted:
            before += [part for part in parted.groups() if part]
            word = ""
            break
        prefix, suffix = PREFIX.match(word), SUFFIX.search(word)
        if prefix and prefix.end() < len(word):
            before.append(prefix.group())
            word = word[prefix.end() :]
        elif suffix and suffix.start() > 0:
            after.insert(0, suffix.group())
            word = word[: suffix.start()]
        else:
            break
    middle = [word] if URL.fullmatch(word) or word in WHOLE else INFIX.split(word)
    return (*before, *(part for part in middle if part), *after)
