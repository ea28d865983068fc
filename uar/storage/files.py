"""Files and folders that appear whole or not at all, and hashes of what they were made from."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uar.errors import UserError

CONTENTS = ".contents.json"  # names and sizes of the files of a finished folder
NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOLCK}  # of a file system without flock
CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str, separators=(",", ":"))


def cache_dir() -> Path:
    """Folder of everything that can be built again: `UAR_CACHE`, else `~/.cache/uar`."""
    try:
        return Path(os.environ.get("UAR_CACHE") or Path.home() / ".cache" / "uar")
    except RuntimeError as error:  # a user that the system does not know
        raise UserError("no home folder for the cache; set UAR_CACHE to a folder that can be written") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it is renamed to `path` when the block ends well, removed when not."""
    beside = _beside(path)
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch(exist_ok=False)
    try:
        with named(path):
            yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def whole_dir(path: Path) -> Iterator[Path]:
    """Like `whole_file` for a folder of the cache. One that another process finished first stays; one of which a part is gone
    gives way. See `is_whole`."""
    beside = _beside(path)
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
    try:
        with named(path):
            yield beside
            write_json(beside / CONTENTS, _sizes(beside))
        _put(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def is_whole(folder: Path) -> bool:
    """Whether a folder that `whole_dir` wrote is there with every file that it was finished with: what cleans caches removes
    single files too."""
    try:
        return all((folder / name).stat().st_size == size for name, size in read_json(folder / CONTENTS).items())
    except (OSError, ValueError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}


def _put(beside: Path, path: Path) -> None:
    while True:
        try:
            os.replace(beside, path)
            return
        except OSError:
            if not path.is_dir():
                raise
        if is_whole(path):
            return
        aside = _beside(path)
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            os.replace(path, aside)
            shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name that no other process takes. What is made under it has the umask's mode, unlike what `tempfile` makes."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """UserError for a file or folder of the cache that cannot be made."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_WRITABLE or not path.is_relative_to(cache_dir()):
            raise
        raise UserError(
            f"the cache {cache_dir()} cannot be written ({error.strerror}); set UAR_CACHE to a folder that can"
        ) from error


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


def matching(pattern: str) -> list[Path]:
    """The file or folder of that name where there is one, else those that the pattern matches."""
    return [Path(pattern)] if os.path.exists(pattern) else [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]


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


def write_array(path: Path, array: np.ndarray) -> None:
    """A file of numpy's."""
    with whole_file(path) as beside, beside.open("wb") as file:
        np.save(file, array)


class Encoded(bytes):
    """The canonical JSON of some parts of digests."""

    @classmethod
    def of(cls, *parts: object) -> "Encoded":
        return cls(CANONICAL.encode(parts).encode("utf-8", "surrogatepass"))


class Canonical:
    """The canonical JSON of a value that is a part of many digests: what these begin with alike is hashed once."""

    def __init__(self, value: object) -> None:
        self._encoded = Encoded.of(value)[1:-1]
        self._begun: dict[tuple[str, ...], Any] = {}  # running hashes, by the parts before the value

    def after(self, before: tuple[str, ...]) -> Any:
        """A running hash of some parts and the value."""
        if before not in self._begun:
            first = Encoded.of(*before)[:-1] + (b"," if before else b"")
            self._begun[before] = hashlib.blake2b(first + self._encoded, digest_size=16)
        return self._begun[before].copy()


def digest(*parts: object) -> str:
    """32 hex digits of the canonical JSON of `parts`: the same on any machine and in any process. At most one is `Canonical`:
    before it are strings, and after it may be `Encoded`, which is then all the rest."""
    for at, part in enumerate(parts):
        if isinstance(part, Canonical):
            running, rest = part.after(parts[:at]), parts[at + 1 :]  # type: ignore[arg-type]
            last = rest[0] if rest and isinstance(rest[0], Encoded) else Encoded.of(*rest)
            running.update(b"," + last[1:] if len(last) > 2 else b"]")
            return str(running.hexdigest())
    return hashlib.blake2b(Encoded.of(*parts), digest_size=16).hexdigest()


def file_hash(path: Path) -> str:
    """Hash of a file's bytes; remembered in the cache under (path, size, mtime, inode), so a large file is read once."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    memo = cache_dir() / "hashes" / f"{digest(str(path.resolve()))}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or broken: hashed anew
        known = read_json(memo)
        if known["stamp"] == stamp:
            return str(known["hash"])
    with path.open("rb") as file:
        value = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    write_json(memo, {"path": str(path), "stamp": stamp, "hash": value})
    return value
