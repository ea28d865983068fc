"""The C library's heap: memory that is freed in pieces stays with the process until it is given back."""

import ctypes
import sys
from functools import cache
from typing import Any


def release_heap() -> None:
    """Give freed memory back to the system, where the C library is glibc; elsewhere nothing is done."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
