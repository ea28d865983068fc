"""Heaps of the C library and of Arrow: memory that is freed in pieces stays with the process until it is given back."""

import ctypes
import sys
from functools import cache
from typing import Any

import pyarrow as pa


def release_heap() -> None:
    """Give freed memory back to the system: Arrow's, and that of the C library where it is glibc."""
    pa.default_memory_pool().release_unused()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
