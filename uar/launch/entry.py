"""Hydra entry points whose user errors are one line on stderr and an exit status of 2."""

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, flag_override

from uar.errors import UserError
from uar.launch import sweeps
from uar.launch.command_options import Taken
from uar.launch.config_folders import config_folders
from uar.launch.help_page import asks_for_help, print_help
from uar.launch.mistyped import check_given, in_words
from uar.launch.one_line import is_of_config, one_line
from uar.launch.override_text import as_typed
from uar.launch.owner import owned
from uar.launch.resolvers import CONF, register_resolvers
from uar.launch.side_by_side import several_devices, started_outside, which_process
from uar.launch.stopping import Stopping
from uar.launch.terminal_log import tidy_terminal
from uar.launch.value_kinds import check_types
from uar.machine.waiting import set_waiting

FULL_ERROR = "HYDRA_FULL_ERROR"
SCALE = "+scale="
SCALED = ("+experiment=", "+setting=", "+method=")  # set what a scale changes

Task = Callable[[DictConfig, Path], Any]
register_resolvers()  # at import: launchers take a job to other processes, which compose its config before they call it


def entry(config_name: str, task: Task) -> None:
    """Compose `conf/<config_name>.yaml` with the command line and call `task(cfg, run_folder)`, once a job of a sweep.

    How the threads of the process wait is set here, so a module of a command imports torch when its task runs.

    A job of a sweep that is done is skipped, and one that fails does not stop the others: those that failed are listed at
    the end, one line each, and the exit status then is 2, as where the only job fails.
    """
    set_waiting(side_by_side=started_outside())
    given = os.environ.get(FULL_ERROR)
    wants_traceback = given == "1"
    failed: list[str] = []
    stopping = Stopping()
    sweep = secrets.token_hex(8)  # goes with the job to other processes and machines

    def job(cfg: DictConfig) -> Any:
        tidy_terminal(which_process())
        folder, swept = Path(HydraConfig.get().runtime.output_dir), sweeps.in_sweep()
        try:
            with _environment(FULL_ERROR, given):  # what the task starts has the user's environment
                return _done(config_name, task, cfg, folder, sweep if swept else None)
        except Exception as error:
            if stopping.stopped(error):  # such as an error of a process whose peer was stopped
                raise KeyboardInterrupt from error
            line = one_line(error)
            if not swept and (line is None or wants_traceback):
                raise
            if not swept:
                failed.append(str(line))
                return None
            if line is None or wants_traceback:
                logging.getLogger(__name__).exception("The job in %s failed", folder)
            sweeps.remember_failure(folder, sweep, line or f"{type(error).__name__}: {error}".splitlines()[0])
            return None

    try:
        _start(config_name, job)
    except BaseException as error:
        if stopping.stopped(error):
            stopping.end()
        if not isinstance(error, Exception):
            raise
        line = in_words(error, config_name, sys.argv[1:]) if is_of_config(error) else one_line(error)
        if line is None and sweeps.failures(sweep):
            line = f"the sweep ended: {error}"
        if wants_traceback or line is None:
            raise
        failed.append(line)
    failed += sweeps.failures(sweep)
    if failed:
        _end_with(failed)


def _start(config_name: str, job: Callable[[DictConfig], Any]) -> None:
    """Print what the command line asks to be told, or have Hydra run its jobs."""
    sys.argv[1:] = as_typed(config_name, sys.argv[1:])
    _check_order(sys.argv[1:])
    if asks_for_help(sys.argv[1:]):
        print_help(config_name, sys.argv[1:])
        return
    with _environment(FULL_ERROR, "1"):  # Hydra then raises its errors here instead of printing several lines
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()


def _done(config_name: str, task: Task, cfg: DictConfig, folder: Path, sweep: str | None) -> Any:
    """What the task returns, once its options are checked and the folder is its own. `sweep`: that the job is of."""
    taken = Taken(config_name, cfg, HydraConfig.get().runtime.choices, config_folders())
    check_given(taken)
    check_types(taken)
    set_waiting(side_by_side=several_devices(cfg))
    if "name" not in cfg:  # a command without run folders of its own
        return task(cfg, folder)
    with owned(folder, sweep, HydraConfig.get().overrides.task):
        if sweep is None:
            return task(cfg, folder)
        sweeps.forget_failure(folder)
        return sweeps.once(task, cfg, folder)


def _end_with(failed: Sequence[str]) -> NoReturn:
    """Print what failed, a line each."""
    logging.shutdown()
    number = which_process()
    who = f"process {number}: " if number else ""
    sys.stderr.write("".join(f"error: {who}{line}\n" for line in failed))
    sys.exit(2)


def composed(config_name: str, *overrides: str) -> DictConfig:
    """The config of a command as its command line would compose it, for Python and notebooks:
    `annotate(composed("annotate", "limit=8", "logger=none"), folder)`. Loggers want to be started by the command line."""
    overrides = tuple(as_typed(config_name, overrides))
    _check_order(overrides)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose(config_name, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)  # the command looks there for what was chosen
    with flag_override(cfg, ["read_only", "struct"], False):  # as Hydra takes it out
        del cfg["hydra"]
    return cfg


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """A variable of the environment set (None: unset) while the block runs."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _check_order(overrides: Sequence[str]) -> None:
    """Hydra composes added groups in the order of the command line, and a later one wins. UserError where `+scale=` stands
    before what it changes, which would then not be changed."""
    groups = [word for word in overrides if word.startswith((SCALE, *SCALED))]
    for scale, later in pairwise(groups):
        if scale.startswith(SCALE):
            raise UserError(f"{scale} stands before {later}, which would win over it; give {scale} after it")
