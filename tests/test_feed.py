"""What keeps a GPU busy, as far as a CPU can show it."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from uar.machine.feed import AHEAD, ahead, fetched, placed
from uar.retrievers.token_batches import ON_CPU, ON_GPU, budget_on

CPU, OTHER = torch.device("cpu"), torch.device("meta")  # of no memory, so that a thread works for it


def numbers(count: int, threads: list[str], fails_at: int = -1) -> Iterator[int]:
    for number in range(count):
        if number == fails_at:
            raise OSError("no such shard")
        threads.append(threading.current_thread().name)
        yield number


@pytest.mark.parametrize("count", [0, 1, AHEAD, 7])
def test_items_made_ahead_are_the_items_in_their_order(count: int):
    threads: list[str] = []
    assert list(ahead(numbers(count, threads), OTHER)) == list(range(count))
    assert threading.current_thread().name not in threads


def test_so_many_items_are_made_before_they_are_asked_for():
    threads: list[str] = []
    made = ahead(numbers(9, threads), OTHER)
    next(made)
    made.close()  # waits for what was begun
    assert len(threads) == 1 + AHEAD


def test_a_cpu_makes_nothing_ahead_and_in_no_thread():
    threads: list[str] = []
    made = ahead(numbers(9, threads), CPU)
    next(made)
    assert threads == [threading.current_thread().name]


@pytest.mark.parametrize("device", [CPU, OTHER])
def test_what_fails_in_a_thread_fails_where_it_is_asked_for(device: torch.device):
    made = ahead(numbers(5, [], fails_at=3), device)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no such shard"):
        next(made)


def test_tensors_are_fetched_with_their_labels():
    made = ((str(n), torch.full((2,), float(n))) for n in range(3))
    found = dict(fetched(made))
    assert list(found) == ["0", "1", "2"] and np.array_equal(found["2"], [2.0, 2.0])
    assert placed(torch.ones(2), OTHER).device == OTHER


def test_a_gpu_has_longer_passes_unless_one_says_how_long():
    assert [budget_on(device, None) for device in (CPU, torch.device("cuda"))] == [ON_CPU, ON_GPU]
    assert budget_on(CPU, None, on_cpu=4_096) == 4_096 and budget_on(torch.device("cuda"), 7, on_cpu=4_096) == 7
