"""Schedules of the learning rate: functions (step, rising, steps) -> what the learning rate is multiplied by.

step: from 0 on; rising: steps of the warm-up, at least 1; steps: all of the stage. A schedule of one's own is one more
function, which training.scheduler names.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int, int, int], float]


def linear(step: int, rising: int, steps: int) -> float:
    """Up to 1 in the warm-up, then down to 0 in a line."""
    return _warm_up(step, rising) if step < rising else max(0.0, (steps - step) / max(1, steps - rising))


def cosine(step: int, rising: int, steps: int, least: float = 0.0) -> float:
    """Up to 1 in the warm-up, then down to `least` by half a cosine (arXiv 1608.03983)."""
    if step < rising:
        return _warm_up(step, rising)
    past = min(1.0, (step - rising) / max(1, steps - rising))
    return least + (1 - least) * (1 + math.cos(math.pi * past)) / 2


def constant(step: int, rising: int, steps: int) -> float:
    """Up to 1 in the warm-up, where it stays."""
    return min(1.0, _warm_up(step, rising))


def _warm_up(step: int, rising: int) -> float:
    return (step + 1) / rising
