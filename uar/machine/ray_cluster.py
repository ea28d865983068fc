"""Ray on this machine or a cluster that runs: how it is joined, and what actors have in common."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uar.errors import UserError
from uar.machine.waiting import wait_settings
from uar.storage.files import cache_dir

KNOCK = 10.0  # seconds


def ray_module(option: str) -> Any:
    """Ray, which `option` asks for; UserError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise UserError(f"{option}=ray: Ray is not installed; run: pip install 'uar[ray]'") from error
    return ray


@contextmanager
def cluster(option: str, address: str | None) -> Iterator[Any]:
    """Ray, joined while the block runs: at `address`, or started on this machine where that is None. Where this process has
    joined it before, it stays as it is. UserError where nothing answers at the address."""
    ray = ray_module(option)
    if ray.is_initialized():
        yield ray
        return
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    except OSError as error:  # a ConnectionError of Ray's is one
        if address is None:
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"{option}.address={address}: no Ray cluster is there ({reason}); start one, or give null") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """OSError where nobody listens at HOST:PORT, which Ray would find out in minutes."""
    host, _, port = (address or "").rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=KNOCK).close()


def actor_environment(actors: int, gpus: float) -> dict[str, str]:
    """Of one of so many actors with so many GPUs each, there before it imports anything. Ray hides no GPU from one that has
    none, and all would take the first."""
    ours = {name: value for name, value in os.environ.items() if name.startswith(("HF_", "UAR_", "TOKENIZERS_"))}
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return ours | hidden | {"UAR_CACHE": str(cache_dir().absolute())} | wait_settings(side_by_side=actors > 1 and not gpus)


def enter(folder: str) -> None:
    """Make the folder of the starting process that of this one, for relative paths; another machine may lack it."""
    if Path(folder).is_dir():
        os.chdir(folder)
