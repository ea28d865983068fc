"""A folder of text files as a corpus.jsonl."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from uar.collections.languages import parts_of, words_in
from uar.errors import DataError, UserError
from uar.storage.files import write_jsonl

SUFFIXES = (".txt", ".md")
HEADING = re.compile(r"#+\s+(.+?)\s*#*$")


def write_corpus(texts: Path, out: Path, words: int) -> int:
    """Write `corpus.jsonl` into `out` from the .txt and .md files under `texts`; the number of passages.

    A passage is as many whole paragraphs of a file as fit into `words` words; a longer paragraph is cut. Its id is the file's
    path (`%20` for a space, which no run file can hold) and a number, its title the Markdown heading that it stands under,
    else the file's name.
    """
    if words < 1:
        raise UserError(f"words={words}: at least 1 word a passage is needed")
    if not texts.is_dir():
        raise UserError(f"texts={texts}: no such folder; give one with {' or '.join(SUFFIXES)} files")
    files = sorted(p for p in texts.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    rows = [
        {"_id": f"{_without_spaces(path.relative_to(texts).as_posix())}#{number}", "title": title, "text": text}
        for path in files
        for number, (title, text) in enumerate(passages(path, words), start=1)
    ]
    if not rows:
        raise UserError(f"texts={texts}: no text in any {' or '.join(SUFFIXES)} file under it")
    write_jsonl(out / "corpus.jsonl", rows)
    return len(rows)


def _without_spaces(name: str) -> str:
    return re.sub(r"[\s%]", lambda found: quote(found[0]), name)


def passages(path: Path, words: int) -> Iterator[tuple[str, str]]:
    """(title, text) of the passages of one file; DataError where it is not UTF-8."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8 ({error.reason}); save the file as UTF-8") from error
    title = path.stem.replace("_", " ").replace("-", " ").strip()
    waiting: list[str] = []
    for paragraph in re.split(r"\n\s*\n|^(?=#+\s)", content, flags=re.MULTILINE):
        first, _, rest = paragraph.strip().partition("\n")
        heading = HEADING.match(first) if path.suffix.lower() == ".md" else None
        if heading:
            yield from _cut(title, waiting, words)
            title, waiting = heading[1], [rest]
            continue
        if words_in("\n".join([*waiting, paragraph])) > words:
            yield from _cut(title, waiting, words)
            waiting = []
        waiting.append(paragraph)
    yield from _cut(title, waiting, words)


def _cut(title: str, paragraphs: list[str], most: int) -> Iterator[tuple[str, str]]:
    yield from ((title, part) for part in parts_of("\n".join(paragraphs), most))
