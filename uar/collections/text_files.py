"""A folder of text files as a corpus.jsonl."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from uar.collections.chunks import chunks
from uar.collections.languages import TERM, clusters, folded, is_unspaced, words_in
from uar.collections.sections import PDF, READERS, Unreadable, joined, read_document
from uar.collections.sections.decoding import AUTO, UTF_8, readable
from uar.errors import UserError
from uar.launch.bars import Bar, bar, counted
from uar.storage.files import write_json, write_jsonl
from uar.storage.near_copies import NearCopies

log = logging.getLogger(__name__)
MIN_WORDS = 20
SHOWN = 100  # characters of a passage that is left out
UNREADABLE, EMPTY, TOO_SHORT, COPY, NEAR_COPY = "unreadable file", "file without text", "too short", "copy", "near copy"


class Passage(NamedTuple):
    id: str
    title: str
    text: str


@dataclass
class Reading:
    """What became of a folder of files. `left_out`: a row for each file, line and passage that the corpus has not; `unread`:
    files of other kinds, by their ending; `encodings`: of files that are not UTF-8; `nuls`: signs taken out, by file."""

    passages: list[Passage] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    encodings: dict[str, str] = field(default_factory=dict)
    nuls: dict[str, int] = field(default_factory=dict)
    files: int = 0

    def leave_out(self, name: str, why: str, **more: Any) -> None:
        self.left_out.append({"id": name, "why": why, **more})

    def summary(self) -> dict[str, Any]:
        """Counts, and the lengths of the passages in words."""
        lengths = sorted(words_in(passage.text) for passage in self.passages)
        return {
            "files": self.files,
            "passages": len(self.passages),
            "words": {"least": lengths[0], "median": lengths[len(lengths) // 2], "most": lengths[-1]} if lengths else None,
            "left_out": dict(Counter(row["why"] for row in self.left_out).most_common()),
            "files_of_other_kinds": dict(self.unread.most_common()),
            "encodings": self.encodings,
            "nuls": self.nuls,
        }


def write_corpus(
    texts: Path, out: Path, words: int, min_words: int | None = None, near_copy: float | None = 0.9, encoding: str = AUTO
) -> dict[str, Any]:
    """Write `corpus.jsonl` into `out` from the files under `texts`; with it `left_out.jsonl` and `corpus_report.json`, whose
    content is returned.

    A passage has at most `words` words, and at least `min_words` (None: 20, or half of `words` where that is less): sections
    are cut into passages of like length, and a short one joins its neighbour. Of passages whose words have a Jaccard
    similarity of `near_copy` or more the first is kept; None keeps all but exact copies. `encoding`: of files that are not
    UTF-8. A passage's id is the file's path (`%20` for a space, which no run file can hold, `%E9` for a byte that is no UTF-8)
    and a number, its title the headings that it stands under, else the file's name.
    """
    least = min(MIN_WORDS, words // 2) if min_words is None else min_words
    _check(texts, words, least, near_copy, encoding)
    reading = Reading()
    files = list(_files(texts, reading))
    with bar("read files", len(files), "files") as shown:
        read = (_passages(path, texts, words, least, encoding, reading) for path in files)
        passages = [passage for of_file in counted(read, shown) for passage in of_file]
    with bar("look for copies", len(passages), "passages") as shown:
        reading.passages = list(_without_copies(passages, near_copy, reading, shown))
    if not reading.passages:
        raise UserError(f"texts={texts}: no text in any {' or '.join(READERS)} file under it{_listed(reading)}")
    write_jsonl(out / "corpus.jsonl", ({"_id": p.id, "title": p.title, "text": p.text} for p in reading.passages))
    write_jsonl(out / "left_out.jsonl", reading.left_out)
    summary = reading.summary()
    write_json(out / "corpus_report.json", summary)
    return summary


def _check(texts: Path, words: int, least: int, near_copy: float | None, encoding: str) -> None:
    if words < 1:
        raise UserError(f"words={words}: at least 1 word a passage is needed")
    if not 0 <= least <= max(1, words // 2):
        raise UserError(f"min_words={least}: from 0 to half of words={words} is possible, so that what is cut is long enough")
    if near_copy is not None and not 0 < near_copy <= 1:
        raise UserError(f"near_copy={near_copy}: a share above 0, at most 1, is needed, or null to keep near copies")
    try:
        "".encode("ascii" if encoding == AUTO else encoding)
    except LookupError as error:
        raise UserError(
            f"encoding={encoding!r} is not known; allowed: {AUTO}, or a name such as cp1252 or shift_jis"
        ) from error
    if not texts.is_dir():
        raise UserError(f"texts={texts}: no such folder; give one with {' or '.join(READERS)} files")


def _files(texts: Path, reading: Reading) -> Iterator[Path]:
    for path in sorted(path for path in texts.rglob("*") if path.is_file()):
        if path.suffix.lower() in READERS:
            reading.files += 1
            yield path
        else:
            reading.unread[path.suffix.lower() or "none"] += 1


def _passages(path: Path, texts: Path, words: int, least: int, encoding: str, reading: Reading) -> Iterator[Passage]:
    name = path.relative_to(texts).as_posix()
    safe = re.sub(r"[\s%\udc80-\udcff]", lambda found: quote(found[0], errors="surrogateescape"), name)
    try:
        document = read_document(path, encoding)
    except Unreadable as error:
        reading.leave_out(safe, UNREADABLE, reason=str(error))
        return
    if document.encoding not in (UTF_8, PDF):
        reading.encodings[readable(name)] = document.encoding
    if document.nuls:
        reading.nuls[readable(name)] = document.nuls
    for why, text in document.left_out:
        reading.leave_out(safe, why, text=text[:SHOWN])
    if not document.sections:
        reading.leave_out(safe, EMPTY)
    cut = [passage for sections in joined(document.sections, least) for passage in chunks(sections, words, least)]
    for number, (title, text) in enumerate(cut, start=1):
        passage = Passage(f"{safe}#{number}", title or document.name, text)
        if words_in(text, least) < least:
            reading.leave_out(passage.id, TOO_SHORT, words=words_in(text), text=text[:SHOWN])
        else:
            yield passage


def _without_copies(passages: list[Passage], near_copy: float | None, reading: Reading, shown: Bar) -> Iterator[Passage]:
    first: dict[str, str] = {}
    near = NearCopies(near_copy or 1)
    kept: list[str] = []
    sets = near.ordered(_words(p.text) for p in passages) if near_copy is not None else [[] for _ in passages]
    for passage, words in counted(zip(passages, sets, strict=True), shown):
        same = first.setdefault(passage.text, passage.id)
        at = None if near_copy is None or same != passage.id or not words else near.like(words)
        if same != passage.id or at is not None:
            like = same if at is None else kept[at]
            reading.leave_out(passage.id, COPY if at is None else NEAR_COPY, like=like, text=passage.text[:SHOWN])
            continue
        near.add(words)
        kept.append(passage.id)
        yield passage


def _words(text: str) -> list[str]:
    terms = TERM.findall(folded(text))
    return [word for term in terms for word in (clusters(term) if is_unspaced(term) else [term])]


def _listed(reading: Reading) -> str:
    counts = Counter(row["why"] for row in reading.left_out)
    return "".join(f"; {n} {why}" for why, n in counts.most_common())
