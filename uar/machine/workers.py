"""Who does work that falls into parts and has no gradient: this process, or Ray actors on one machine or many.

`workers=ray` holds for a whole command, as joblib's `parallel_config` does for a block: no result depends on it, so it is in
no key and no constructor. What an actor makes, it writes where this process would have written it.
"""

import errno
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from uar.errors import UserError, chain_of
from uar.machine.ray_cluster import actor_environment, cluster, enter, ray_module
from uar.storage.files import writable

log = logging.getLogger(__name__)
Work = Callable[[Any, Any], Any]  # of a part and of what all parts have in common
STARTING = 60.0  # seconds without any actor before the log says so
VISIBLE = 90.0  # seconds that another machine's file may take to be seen: NFS keeps what it knows of a folder for up to 60
TRIES = 2  # more of a part whose actor died


@dataclass(frozen=True)
class Workers:
    """`actors` with `num_cpus` (which is how many threads each has) and `num_gpus` each: None is one where Ray has any, of
    which an actor that gets none does nothing; with 0 they compute on the CPU. `address`: of a cluster that runs, whose
    machines see the cache and the folders of the command under the same paths; None starts one on this machine. `option`: how
    errors name them."""

    actors: int = 2
    num_cpus: float = 0.5
    num_gpus: float | None = None
    address: str | None = None
    option: ClassVar[str] = "workers"

    def __post_init__(self) -> None:
        if self.actors < 1:
            raise UserError(f"{self.option}.actors={self.actors}: at least 1 is needed")
        if self.num_cpus < 0 or (self.num_gpus or 0) < 0:
            given = f"{self.option}.num_cpus={self.num_cpus:g}, {self.option}.num_gpus={self.num_gpus}"
            raise UserError(f"{given}: from 0 on are needed")
        ray_module(self.option)

    @contextmanager
    def opened(
        self, opener: Callable[[], Work], most: int, written: Path | None = None, on_gpu: bool = True
    ) -> Iterator["Crew"]:
        """Actors that each call `opener` once, for as long as the block runs; not more than `most`, the parts that there are.
        `written`: the folder that they write to, which has to be the one that this process sees under that name. `on_gpu`:
        whether their work is done on one where there are any."""
        with cluster(self.option, self.address) as ray, _probe(written) as probe:
            gpus = self.gpus(ray.cluster_resources().get("GPU", 0) if on_gpu else 0)
            self._check_fits(ray, {"num_cpus": self.num_cpus, "num_gpus": gpus})
            job = [ray.put(ray.cloudpickle.dumps(opener))]  # in a list it is fetched by an actor that needs it
            kind = ray.remote(Worker).options(
                num_cpus=self.num_cpus,
                num_gpus=gpus,
                max_restarts=TRIES,
                max_task_retries=TRIES,
                runtime_env={"env_vars": actor_environment(self.actors, gpus)},
            )
            actors = [kind.remote(self.option, probe, os.getcwd()) for _ in range(min(self.actors, most))]
            crew = Crew(ray, self.option, actors, job)
            try:
                yield crew
            finally:
                crew.dismiss()

    def gpus(self, there: float) -> float:
        """Of an actor, where Ray has so many."""
        return min(1.0, there) if self.num_gpus is None else self.num_gpus

    def _check_fits(self, ray: Any, of_each: Mapping[str, float]) -> None:
        """Of a machine that cannot grow; a cluster may."""
        there = ray.cluster_resources()
        for name, kind in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
            wanted, has = of_each[name], there.get(kind, 0)
            if self.address is None and wanted > has:
                raise UserError(
                    f"{self.option}.{name}={wanted:g}: an actor cannot have more than this machine, {has:g} {kind}s"
                )


class Crew:
    """Actors at work. Those that did not start yet get nothing to do, so that none waits for a machine that never comes."""

    def __init__(self, ray: Any, option: str, actors: Sequence[Any], job: list[Any]) -> None:
        self._ray, self._option, self._job = ray, option, job
        self._starting = {actor.open.remote(job): actor for actor in actors}
        self._idle: list[Any] = []

    def each(self, parts: Iterable[Any], common: Any = None) -> Iterator[tuple[int, Any]]:
        """(number from 0, what the work gives) of each part, as they are done. `common` goes with all of them. UserError where
        a part raises it or a worker is lost for good; what was written stays."""
        left, shared = enumerate(parts), self._ray.put(common)
        busy: dict[Any, tuple[Any, int]] = {}
        following = next(left, None)
        while following is not None or busy:
            while following is not None and self._idle:
                actor, (number, part) = self._idle.pop(), following
                busy[actor.do.remote(self._job, part, shared)] = actor, number
                following = next(left, None)
            done, _ = self._ray.wait([*busy, *self._starting], num_returns=1, timeout=STARTING)
            if not done and not busy:
                log.warning(
                    "%s: no actor could start yet; the cluster has %s free", self._option, self._ray.available_resources()
                )
            for ref in done:
                started = ref in self._starting
                actor, number = (self._starting.pop(ref), -1) if started else busy.pop(ref)
                self._idle.append(actor)
                result = self._result(ref)
                if not started:
                    yield number, result

    def dismiss(self) -> None:
        """Those with nothing to do end at once. The others end when nobody refers to them any more, since Ray would say on the
        terminal that their part is lost."""
        for actor in self._idle:
            self._ray.kill(actor)
        self._idle.clear()
        self._starting.clear()

    def _result(self, ref: Any) -> Any:
        failures = self._ray.exceptions
        try:
            result, fault = self._ray.get(ref)
        except failures.RayTaskError:  # a fault of the program, with its traceback
            raise
        except failures.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{self._option}: an actor is lost ({reason}); what is done is kept, and the same command goes on"
            ) from error
        if fault:
            raise UserError(fault)
        return result


class Worker:
    """An actor. Each method returns what came of it and, where the user can mend what went wrong, a line on it."""

    def __init__(self, option: str, probe: Path | None, folder: str) -> None:
        enter(folder)
        self._option, self._probe = option, probe
        self._work: Work | None = None

    def open(self, job: list[Any]) -> tuple[None, str | None]:
        """`job`: a reference to the pickled opener."""
        _, fault = self._told(lambda: self._opened(job))
        return None, fault

    def do(self, job: list[Any], part: Any, common: Any) -> tuple[Any, str | None]:
        """Also after a restart, with nothing opened."""
        return self._told(lambda: self._opened(job)(part, common))

    def _opened(self, job: list[Any]) -> Work:
        if self._work is None:
            import ray

            if self._probe is not None and not visible(self._probe):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._probe.parent))
            self._work = ray.cloudpickle.loads(ray.get(job[0]))()
        return self._work

    def _told(self, what: Callable[[], Any]) -> tuple[Any, str | None]:
        here = f"{self._option}: {socket.gethostname()}"
        try:
            return what(), None
        except FileNotFoundError as error:
            return None, (
                f"{here} does not have {error.filename} of the starting machine; give folders that all machines share under "
                "the same paths: UAR_CACHE, store, search.embeddings, and those of models and collections"
            )
        except Exception as error:  # Hydra wraps what a class that it makes raises
            known = isinstance(error, OSError | ImportError)
            fault = error if known else next((e for e in chain_of(error) if isinstance(e, UserError)), None)
            if fault is None:
                raise
            return None, f"{here}: {fault}"


def visible(path: Path) -> bool:
    """Whether a file that another machine wrote is there, or comes in sight. To list its folder is what makes NFS ask anew."""
    end = time.monotonic() + VISIBLE
    while not path.exists():
        if time.monotonic() > end:
            return False
        with suppress(OSError):
            os.listdir(path.parent)
        time.sleep(0.5)
    return True


@contextmanager
def _probe(folder: Path | None) -> Iterator[Path | None]:
    """A file in the folder that workers look for."""
    if folder is None:
        yield None
        return
    path = folder.absolute() / f".shared-{secrets.token_hex(8)}"
    with writable(path):
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


_chosen: ContextVar[Workers | None] = ContextVar("workers", default=None)


def chosen_workers() -> Workers | None:
    """Those of the block that runs; None where this process does all by itself."""
    return _chosen.get()


@contextmanager
def working(workers: Workers | None) -> Iterator[None]:
    """What falls into parts goes to `workers` while the block runs."""
    before = _chosen.set(workers)
    try:
        yield
    finally:
        _chosen.reset(before)
