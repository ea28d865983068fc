"""Files and folders that appear whole or not at all, and hashes of what they were made from."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOLCK}  # of a file system without flock


def cache_dir() -> Path:
    """Folder of everything that can be built again: `UAR_CACHE`, else `~/.cache/uar`."""
    return Path(os.environ.get("UAR_CACHE") or Path.home() / ".cache" / "uar")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it is renamed to `path` when the block ends well, removed when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    os.chmod(name, 0o644)
    beside = Path(name)
    try:
        with named(path):
            yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def whole_dir(path: Path) -> Iterator[Path]:
    """Like `whole_file` for a folder. Where another process finishes the same folder first, that one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with named(path):
            yield beside
        try:
            os.replace(beside, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name `path` in an OSError whose raiser left it out (pyarrow, `os.write`). numpy's short write has no number either."""
    try:
        yield
    except OSError as error:
        number = error.errno or (errno.ENOSPC if " requested and " in str(error) else None)
        if error.filename is not None or number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    with whole_file(path) as beside, beside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pa.Table, compression: str = "snappy") -> None:
    """A Parquet file."""
    with whole_file(path) as beside:
        pq.write_table(table, beside, compression=compression)


def digest(*parts: object) -> str:
    """32 hex digits of the canonical JSON of `parts`: the same on any machine and in any process."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def file_hash(path: Path) -> str:
    """Hash of a file's bytes; remembered in the cache under (path, size, mtime, inode), so a large file is read once."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    memo = cache_dir() / "hashes" / f"{digest(str(path.resolve()))}.json"
    if memo.is_file():
        known = read_json(memo)
        if known["stamp"] == stamp:
            return str(known["hash"])
    with path.open("rb") as file:
        value = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    write_json(memo, {"path": str(path), "stamp": stamp, "hash": value})
    return value
