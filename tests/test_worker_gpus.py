"""Which GPUs actors of Ray see; Ray deals out those that it is said to have, whether they are there or not."""

import os
from collections.abc import Callable, Iterator

import pytest

from uar.llm.engines.ray import RayEngine, Replicas
from uar.machine.workers import Workers

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    ray.init(num_cpus=2, num_gpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize(
    ("workers", "on_gpu", "seen"),
    [(Workers(), True, {"0", "1"}), (Workers(), False, {""}), (Workers(num_gpus=0), True, {""})],
    ids=["by machine", "work that needs none", "none"],
)
def test_each_actor_sees_a_gpu_of_its_own_or_none(two_gpus: None, workers: Workers, on_gpu: bool, seen: set[str]):
    def opener() -> Callable[[object, object], str | None]:  # inside, so that actors need not find this file
        own = os.environ.get("CUDA_VISIBLE_DEVICES")
        return lambda part, common: own

    found: set[str] = set()
    with workers.opened(opener, 2, on_gpu=on_gpu) as crew:
        for _ in range(50):  # until both have started
            found |= {own for _, own in crew.each(range(8))}
            if found == seen:
                break
    assert found == seen


def test_replicas_have_the_gpus_that_their_models_work_on():
    assert [Replicas(works_on=n).gpus(there) for n, there in ((2.0, 8), (0.0, 8), (2.0, 0))] == [2, 0, 0]
    assert Replicas(num_gpus=1, works_on=2.0).gpus(8) == 1
    assert RayEngine.gpus({"actors": 4, "num_gpus": None}, [2, 1]) == 8
    assert RayEngine.gpus({"actors": 4, "num_gpus": None}, []) == 0
