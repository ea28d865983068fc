"""Which of many contents are equal."""

import hashlib
from collections.abc import Iterable

import numpy as np


def first_of_equal(contents: Iterable[bytes]) -> np.ndarray:
    """(contents,) the place of the first that each equals. There may be millions, so hashes of 8 bytes are compared."""
    hashes = b"".join(hashlib.blake2b(content, digest_size=8).digest() for content in contents)
    _, first, which = np.unique(np.frombuffer(hashes, np.uint64), return_index=True, return_inverse=True)
    return np.asarray(first[which])
