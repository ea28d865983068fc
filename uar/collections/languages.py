"""Languages of texts: which one a corpus is in by its script, and how its texts are counted in words."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

import regex

from uar.errors import UserError

AUTO, OTHER = "auto", "other"
STEMMERS = {  # Snowball's stemmer of each language
    "ar": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "cs": "czech", "da": "danish", "nl": "dutch",
    "en": "english", "eo": "esperanto", "et": "estonian", "fi": "finnish", "fr": "french", "de": "german", "el": "greek",
    "hi": "hindi", "hu": "hungarian", "id": "indonesian", "ga": "irish", "it": "italian", "lt": "lithuanian", "ne": "nepali",
    "no": "norwegian", "fa": "persian", "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian",
    "st": "sesotho", "es": "spanish", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
UNSTEMMED = {"zh": "chinese", "ja": "japanese", "ko": "korean", "th": "thai", "lo": "lao", "km": "khmer", "my": "burmese"}
CODES = {name: code for code, name in (STEMMERS | UNSTEMMED).items()}

IDEOGRAMS = r"\p{Han}\p{Hiragana}\p{Katakana}ー"  # a character is about a word
SYLLABLES = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"  # a word is some five characters, which no space parts from the next
UNSPACED = IDEOGRAMS + SYLLABLES
STARTS_UNSPACED = regex.compile(rf"[{UNSPACED}]")
CLUSTER = regex.compile(r"\X")
TERM = regex.compile(rf"[{UNSPACED}](?:[{UNSPACED}\p{{M}}])*|(?:(?![{UNSPACED}])[\p{{L}}\p{{N}}\p{{M}}_])+")
SPACE = r"\s\x1c-\x1f"  # as `str.split` has it
SIGNS = "\u3040-\u30ff"  # of kana, some of which are no letters
LONGEST = 20  # letters of a word; what goes on without a space, such as an address or encoded data, counts as several
WORD = regex.compile(rf"[{IDEOGRAMS}{SIGNS}]|[{SYLLABLES}]{{1,5}}\p{{M}}*|[^{SPACE}{UNSPACED}{SIGNS}]{{1,{LONGEST}}}")
SCRIPTS = {  # letters that say about as much as a word, by script
    "Latin": 5, "Cyrillic": 5, "Greek": 5, "Arabic": 4, "Hebrew": 4, "Devanagari": 4, "Armenian": 5, "Tamil": 5, "Hangul": 2,
    "Han": 2, "Hiragana": 2, "Katakana": 2, "Thai": 4, "Lao": 4, "Khmer": 4, "Myanmar": 4,
}  # fmt: skip
BY_SCRIPT = {
    "Latin": "en", "Greek": "el", "Devanagari": "hi", "Armenian": "hy", "Tamil": "ta", "Hangul": "ko", "Thai": "th",
    "Lao": "lo", "Khmer": "km", "Myanmar": "my",
}  # fmt: skip
OF_SCRIPT = {script: regex.compile(rf"\p{{{script}}}") for script in SCRIPTS}
KANA_OF_JAPANESE = 0.05  # of all characters, at least
NOT_RUSSIAN, RUSSIAN = regex.compile("[іїєґјљњћђџў]"), regex.compile("[ыэ]")
NOT_ARABIC = regex.compile("[پچژگٹڈڑے]")
FEW = 0.005  # of all letters: fewer are those of foreign names


def language_code(given: str) -> str:
    """The code of a language given by its code or its English name; UserError for an unknown one."""
    name = given.lower()
    if name in STEMMERS or name in UNSTEMMED or name in (AUTO, OTHER):
        return name
    if name not in CODES:
        allowed = ", ".join([AUTO, *sorted(CODES.values()), *sorted(CODES), OTHER])
        raise UserError(f"language={given!r} is not known; allowed: {allowed}, where {OTHER} counts words as they are written")
    return CODES[name]


def language_of(texts: Iterable[str]) -> str:
    """The language that the most words are of, as far as their script says: English for Latin letters, `other` for scripts of
    several languages where the letters leave it open, and where there are no letters."""
    text = "\n".join(texts).lower()
    counts = Counter({script: len(pattern.findall(text)) for script, pattern in OF_SCRIPT.items()})
    han, kana = counts["Han"], counts["Hiragana"] + counts["Katakana"]
    words = Counter({script: counts[script] / letters for script, letters in SCRIPTS.items()})
    words["East Asian"] = words.pop("Han") + words.pop("Hiragana") + words.pop("Katakana")
    script, most = words.most_common(1)[0]
    if not most:
        return OTHER
    if script == "East Asian":
        return "ja" if kana >= KANA_OF_JAPANESE * (han + kana) else "zh"
    if script == "Cyrillic":
        other, own = (len(letters.findall(text)) / counts[script] for letters in (NOT_RUSSIAN, RUSSIAN))
        return "ru" if own >= FEW > other else OTHER
    if script == "Arabic":
        return "ar" if len(NOT_ARABIC.findall(text)) / counts[script] < FEW else OTHER
    return BY_SCRIPT.get(script, OTHER)


def folded(text: str) -> str:
    """A text in the one spelling of what Unicode spells in several ways, without the difference of capitals."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def clusters(text: str) -> list[str]:
    """The characters as readers see them: a letter with its marks is one."""
    return CLUSTER.findall(text)


def is_unspaced(term: str) -> bool:
    """Whether a term is of a script without spaces, so that it is some words written together."""
    return STARTS_UNSPACED.match(term) is not None


def words_in(text: str, most: int | None = None) -> int:
    """Number of words, counted up to `most`: what stands between spaces, 20 letters of it at most, a character of Chinese and
    Japanese, five of Thai, Lao, Khmer and Burmese."""
    return len(WORD.findall(text)) if most is None else sum(1 for _ in islice(WORD.finditer(text), most))


def parts_of(text: str, words: int) -> Iterator[str]:
    """A text in parts of at most so many words, single spaces between them."""
    ends = [match.start() for at, match in enumerate(WORD.finditer(text)) if at and at % words == 0]
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        part = " ".join(text[start:end].split())
        if part:
            yield part


def head(text: str, words: int) -> str:
    """The first words of a text. One that is no longer is left as it is."""
    if len(text) <= words:
        return text
    if text.isascii():
        long_words = len(text) // LONGEST
        if (len(text) + 1) // 2 + long_words <= words or len(text.split()) + long_words <= words:
            return text
    start = list(islice(WORD.finditer(text), words + 1))
    return text if len(start) <= words else " ".join(text[: start[-1].start()].split())
