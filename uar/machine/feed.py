"""Keeps a GPU busy: a thread makes what it needs next, and nothing waits for what it computes before there is need to."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch

Item = TypeVar("Item")
Label = TypeVar("Label")
AHEAD = 2  # items


def placed(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device, without waiting for what that computes at the time."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def ahead(items: Iterable[Item], device: torch.device) -> Iterator[Item]:
    """The items. Those for another device than the CPU, whose cores have the work itself, are made by a thread, some before
    they are asked for."""
    if device.type == "cpu":
        yield from items
        return
    left, end = iter(items), object()
    begin: dict[str, Any] = {"initializer": torch.cuda.set_device, "initargs": (device,)} if device.type == "cuda" else {}
    with ThreadPoolExecutor(1, **begin) as thread:
        waiting = deque(thread.submit(next, left, end) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, left, end))
            yield item  # type: ignore[misc]


def fetched(made: Iterable[tuple[Label, torch.Tensor]]) -> Iterator[tuple[Label, np.ndarray]]:
    """The tensors as arrays, each with its label. A GPU's is copied while the next one is made."""
    waiting: deque[tuple[Label, torch.Tensor, Any]] = deque()
    for label, tensor in made:
        done = torch.cuda.Event() if tensor.is_cuda else None
        waiting.append((label, tensor.to("cpu", non_blocking=True), done))
        if done is not None:
            done.record(torch.cuda.current_stream(tensor.device))
        while len(waiting) > (done is not None):
            yield _arrived(*waiting.popleft())
    while waiting:
        yield _arrived(*waiting.popleft())


def _arrived(label: Label, copy: torch.Tensor, done: Any) -> tuple[Label, np.ndarray]:
    if done is not None:
        done.synchronize()
    return label, copy.numpy()
