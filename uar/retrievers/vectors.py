"""Where the vectors of a corpus lie while it is searched: in a folder of choice, or in the cache until they are used up."""

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType

from uar.collections import Corpus
from uar.storage.files import writable
from uar.storage.locks import lock


class Vectors:
    """Folders of vectors. In `kept` they stay. Without it they lie in the cache, under a name of all that makes them, so that
    the same command goes on after a kill, and are removed when the block ends well, unless another process uses them too."""

    def __init__(self, kept: Path | None = None) -> None:
        self._kept = kept
        self._held: dict[Path, int] = {}  # descriptors that hold a shared lock

    def __enter__(self) -> "Vectors":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for folder in list(self._held):
            self._let_go(folder, remove=kind is None)

    def folder(self, corpus: Corpus, part: str, key: str) -> Path:
        """Of the vectors of a corpus. `part`: of what retriever among several, in a folder that is kept; `key`: what they are
        made by, in the cache."""
        if self._kept is not None:
            return self._kept / part / corpus.hash
        folder = corpus.cache / "embeddings" / key / corpus.hash
        if folder not in self._held:
            self._held[folder] = _shared(folder)
        with writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def forget(self, corpus: Corpus) -> None:
        """A corpus is not searched any more."""
        for folder in [folder for folder in self._held if folder.name == corpus.hash]:
            self._let_go(folder, remove=True)

    def _let_go(self, folder: Path, remove: bool) -> None:
        held = self._held.pop(folder)
        try:
            if remove:
                lock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # another process searches them, and removes them afterwards
            pass
        finally:
            os.close(held)


def _shared(folder: Path) -> int:
    """A descriptor with a shared lock, which a process loses when it ends in whatever way. The lock is of a file of its own,
    which stays: NFS locks only what is open for writing, as a folder cannot be."""
    path = folder.parent.parent / f"{folder.parent.name}-{folder.name}.lock"
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # less what the umask says
    lock(held, fcntl.LOCK_SH)
    return held
