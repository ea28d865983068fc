"""Lists of different lengths as one array: segment i lies from ends[i] to ends[i + 1]."""

from collections.abc import Sequence

import numpy as np


def ends_of(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """(segments + 1,) of segments of these sizes."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(sizes, np.int64))])


def places_of(ends: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the chosen segments, put one after another, and the places of their values."""
    sizes = (ends[1:] - ends[:-1])[chosen]
    own = ends_of(sizes)
    return own, np.repeat(ends[:-1][chosen] - own[:-1], sizes) + np.arange(own[-1])


def ranks_of(sizes: np.ndarray) -> np.ndarray:
    """(values,) ranks from 1 in segments of these sizes."""
    ends = ends_of(sizes)
    return (np.arange(ends[-1]) - np.repeat(ends[:-1], sizes) + 1).astype(np.int32)
