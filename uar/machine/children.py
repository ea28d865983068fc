"""Processes of one piece of work beside each other on this machine, with a fault of one as a fault of this one."""

from collections.abc import Callable
from typing import Any

from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException, spawn

from uar.errors import UserError
from uar.machine.waiting import children_side_by_side


def run_children(work: Callable[..., None], number: int, args: tuple[object, ...], meanwhile: Callable[[], None]) -> None:
    """`work(rank, *args)` in `number` processes; returns when all are done, and calls `meanwhile` each second until then. What
    the user can mend, a UserError or an OSError, is raised as a child raised it, and a UserError where one was killed; the
    others are ended."""
    faults = get_context("spawn").SimpleQueue()
    with children_side_by_side():
        children = spawn(_telling, args=(work, faults, args), nprocs=number, join=False)
        try:
            while not children.join(timeout=1):
                meanwhile()
        except ProcessException as error:
            if not faults.empty():
                raise faults.get() from error
            if isinstance(error, ProcessExitedException) and error.signal_name:
                raise UserError(
                    f"one of {number} processes was killed ({error.signal_name}), as happens where memory runs out; what is "
                    "done is kept, and the same command goes on"
                ) from error
            raise


def _telling(rank: int, work: Callable[..., None], faults: Any, args: tuple[object, ...]) -> None:
    try:
        work(rank, *args)
    except OSError as error:
        faults.put(error)
        raise
    except UserError as error:
        faults.put(UserError(str(error)))  # its own kinds are made of other parts than their line
        raise
