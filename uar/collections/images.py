"""Images of questions: files of a collection's folder, or addresses on the web."""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from uar.errors import DataError, EngineError
from uar.storage.files import file_hash

MOST_BYTES = 20 * 2**20  # of a file: as many as hosted servers take
BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
ON_THE_WEB = ("http://", "https://")


@dataclass(frozen=True)
class Image:
    """`name`: as the collection has it, a path below `folder` or an http(s) URL."""

    name: str
    folder: Path

    @property
    def is_file(self) -> bool:
        return not self.name.startswith(ON_THE_WEB)

    @cached_property
    def key(self) -> str:
        """What tells it from others: the hash of a file's content, whatever its name, or a URL as it is written."""
        return f"blake2b:{file_hash(self.folder / self.name)}" if self.is_file else self.name

    def fault(self) -> str | None:
        """Why it cannot be shown to an LLM; a URL is not looked at."""
        if not self.is_file:
            return None
        if "://" in self.name or self.name.startswith("data:"):
            return "a path below the collection's folder or an http(s) URL is needed"
        if PurePosixPath(self.name).is_absolute() or ".." in PurePosixPath(self.name).parts:
            return f"it leads out of {self.folder}; move it into the folder and give the path below it"
        path = self.folder / self.name
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                begins = file.read(16)
        except (FileNotFoundError, ValueError):  # a name that no file can have is a ValueError
            return f"no such file in {self.folder}"
        except OSError as error:
            return f"it cannot be read ({error.strerror})"
        if media_type(begins) is None:
            return "it begins like no image that servers take; allowed: PNG, JPEG, WebP, GIF"
        if size > MOST_BYTES:
            return f"it has {size / 2**20:.1f} MiB, at most {MOST_BYTES // 2**20} are taken; make it smaller"
        return None

    def url(self) -> str:
        """The URL, or a data URI with the file's content. EngineError where that is not what `key` was made of."""
        if not self.is_file:
            return self.name
        try:
            content = (self.folder / self.name).read_bytes()
        except OSError as error:
            raise EngineError(f"image {self.name}: it cannot be read any more ({error.strerror})") from error
        if self.key != f"blake2b:{hashlib.blake2b(content, digest_size=16).hexdigest()}":
            raise EngineError(f"image {self.name}: the file changed while the run went on; start the command again")
        return f"data:{media_type(content)};base64,{base64.b64encode(content).decode('ascii')}"


def media_type(content: bytes) -> str | None:
    """By its first bytes; None where it is no image of a kind that servers take."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for begins, kind in BEGINNINGS.items() if content.startswith(begins)), None)


def check_images(path: Path, images: Iterable[tuple[str, Image | None]]) -> int:
    """How many of the queries (id, image) of the file `path` have one. DataError names the query and the image that cannot be
    shown."""
    checked: dict[Image, str | None] = {}
    number = 0
    for query_id, image in images:
        if image is None:
            continue
        number += 1
        if image not in checked:
            checked[image] = image.fault()
        if (fault := checked[image]) is not None:
            raise DataError(path, f"query {query_id!r}: image {image.name!r}: {fault}")
    return number
