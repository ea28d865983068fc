"""Process 0 makes pools, the others read them."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.training import shared_pools
from uar.training.shared_pools import SharedPools, pools_key


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def never(query_ids: Sequence[str]) -> dict[str, list[str]]:
    raise AssertionError(f"pools of {query_ids} are made again")


def counted(asked: list[str]) -> Callable[[Sequence[str]], dict[str, list[str]]]:
    def make(query_ids: Sequence[str]) -> dict[str, list[str]]:
        asked.extend(query_ids)
        return {q: ["d1", "d2"] for q in query_ids}

    return make


def test_each_query_is_asked_once_and_all_are_kept_for_the_others(
    toy: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, asked = tmp_path / "pools.jsonl", []
    first = SharedPools(path, "key", toy, counted(asked))
    assert first(["q1"]) == {"q1": ["d1", "d2"]}
    assert list(first(["q2", "q1", "q2"])) == ["q2", "q1"] and asked == ["q1", "q2"]
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert SharedPools(path, "key", toy, never)(["q1", "q2"]) == first(["q1", "q2"])
    monkeypatch.setattr(shared_pools, "LONGEST", 0.0)
    for key, wanted in (("other", "q1"), ("key", "q3")):
        with pytest.raises(UserError, match="process 0 did not write the pools"):
            SharedPools(path, key, toy, never)([wanted])


def test_a_process_waits_for_what_process_0_writes(toy: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, asked = tmp_path / "pools.jsonl", []
    monkeypatch.setattr(shared_pools, "BETWEEN", 0.01)
    SharedPools(path, "stale", toy, counted([]))(["q1"])
    writer = SharedPools(path, "key", toy, counted(asked))
    found: dict[str, list[str]] = {}

    class Rank1(SharedPools):
        def __call__(self, query_ids: Sequence[str]) -> dict[str, list[str]]:
            self._wait(query_ids)
            return {q: self._found[q] for q in query_ids}

    reader = threading.Thread(target=lambda: found.update(Rank1(path, "key", toy, never)(["q1", "q3"])))
    reader.start()
    for wanted in (["q1"], ["q3"]):  # the first file does not hold all
        time.sleep(0.05)
        assert not found
        writer(wanted)
    reader.join()
    assert found == {"q1": ["d1", "d2"], "q3": ["d1", "d2"]} and asked == ["q1", "q3"]


def test_a_resumed_process_0_reads_its_own_pools_of_the_same_key(toy: Collection, tmp_path: Path):
    path, asked = tmp_path / "pools.jsonl", []
    SharedPools(path, "key", toy, counted([]))(["q1"])
    assert SharedPools(path, "key", toy, never, resume=True)(["q1"]) == {"q1": ["d1", "d2"]}
    SharedPools(path, "other", toy, counted(asked), resume=True)(["q1"])
    assert asked == ["q1"]


def test_pools_of_another_start_have_another_key(toy: Collection, monkeypatch: pytest.MonkeyPatch):
    before = pools_key({"depth": 8}, toy)
    assert before == pools_key({"depth": 8}, toy) != pools_key({"depth": 9}, toy)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert before != pools_key({"depth": 8}, toy)
