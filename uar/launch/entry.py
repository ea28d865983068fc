"""Hydra entry points whose user errors are one line on stderr and an exit status of 2."""

import errno
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from uar.errors import UserError
from uar.launch import sweeps
from uar.storage.files import digest

ROOT = Path(__file__).resolve().parent.parent
CONF = next((p for p in (ROOT / "conf", ROOT.parent / "conf") if p.is_dir()), ROOT / "conf")
FULL_ERROR = "HYDRA_FULL_ERROR"
LISTED = {"trainer.devices"}  # numbers that may be lists as well
LONGEST_NAME = 200  # bytes of the name of a run's folder; file systems take 255
LONGEST_GROUP = 128  # letters of the name of a group that W&B takes
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Task = Callable[[DictConfig, Path], Any]


def entry(config_name: str, task: Task) -> None:
    """Compose `conf/<config_name>.yaml` with the command line and call `task(cfg, run_folder)`, once a job of a sweep.

    A job of a sweep that is done is skipped, and one that fails does not stop the others: those that failed are listed at
    the end, one line each, and the exit status then is 2, as where the only job fails.
    """
    given = os.environ.get(FULL_ERROR)
    wants_traceback = given == "1"
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word.startswith("+scale="))  # it changes what experiments set
    failed: list[str] = []
    sweep = secrets.token_hex(8)  # goes with the job to other processes and machines

    def job(cfg: DictConfig) -> Any:
        folder = Path(HydraConfig.get().runtime.output_dir)
        swept = sweeps.in_sweep()
        try:
            with _environment(FULL_ERROR, given):  # what the task starts has the user's environment
                _check_types(cfg, config_name)
                if not swept:
                    return task(cfg, folder)
                sweeps.forget_failure(folder)
                return sweeps.once(task, cfg, folder)
        except Exception as error:
            line = one_line(error)
            if swept:
                if line is None or wants_traceback:
                    logging.getLogger(__name__).exception("The job in %s failed", folder)
                sweeps.remember_failure(folder, sweep, line or f"{type(error).__name__}: {error}".splitlines()[0])
                return None
            if wants_traceback or line is None:
                raise
            failed.append(line)
            return None

    try:
        with _environment(FULL_ERROR, "1"):  # Hydra then raises its errors here instead of printing several lines
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        line = one_line(error)
        if line is None and sweeps.failures(sweep):
            line = f"the sweep ended: {error}"
        if wants_traceback or line is None:
            raise
        failed.append(line)
    failed += sweeps.failures(sweep)
    if failed:
        logging.shutdown()
        sys.stderr.write("".join(f"error: {line}\n" for line in failed))
        sys.exit(2)


def composed(config_name: str, *overrides: str) -> DictConfig:
    """The config of a command as its command line would compose it, for Python and notebooks:
    `annotate(composed("annotate", "limit=8", "logger=none"), folder)`. Loggers want to be started by the command line."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        whole = hydra.compose(config_name, list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(whole)  # the command looks there for what was chosen
        return hydra.compose(config_name, list(overrides))


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


def _check_types(cfg: DictConfig, config_name: str) -> None:
    """UserError where the command line gives text for a number, a fraction for a whole number, or the like."""
    task = HydraConfig.get().overrides.task
    if not task:
        return
    groups = [o for o in task if (CONF / o.split("=")[0].split("@")[0]).is_dir()]
    defaults = hydra.compose(config_name, groups)
    for override in task:
        key = override.split("=")[0].lstrip("+~")
        if override in groups or override[0] in "+~":
            continue
        default, given = (OmegaConf.select(c, key, throw_on_missing=False) for c in (defaults, cfg))
        kinds = {bool: "true or false", int: "a whole number", float: "a number"}
        kind = next((k for k in kinds if type(default) is k), None)
        fits = kind is None or given is None or type(given) is kind or (kind is float and type(given) is int)
        fits = fits or (key in LISTED and OmegaConf.is_list(given) and all(type(part) is kind for part in given))
        if not fits:
            raise UserError(f"{key}={given!r}: {kinds[kind]} is needed, such as {default!r}")  # type: ignore[index]


def one_line(error: BaseException) -> str | None:
    """What a user is told; None for a fault of the program itself, which deserves its traceback."""
    for cause in _chain(error):
        if isinstance(cause, UserError):
            return " ".join(str(cause).split())
        if isinstance(cause, OSError) and cause.errno in FULL:
            place = cause.filename2 or cause.filename or "the output folder"
            advice = "free some space and run the same command again: what was finished is kept"
            return f"no space left while writing {place} ({cause.strerror}); {advice}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _about_config(error)
    return None


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return chain


def _about_config(error: BaseException) -> str:
    """Hydra's and OmegaConf's several lines as one, without their internals."""
    lines: list[str] = []
    for cause in reversed(_chain(error)):
        for line in str(cause).split("Config search path")[0].splitlines():
            words = " ".join(line.split())
            if words and not words.startswith(("object_type", "reference_type", "full_key", "To append")):
                lines.append(words.rstrip(".;"))
    return f"{'; '.join(dict.fromkeys(lines)).replace(':;', ':')}; --help lists the options and their choices"


def register_resolvers() -> None:
    """The resolvers that configs use: `${first:a,b}` is the first of its values that is not null; `${models:${llms}}` counts
    the run's model and the further ones; `${by_scale:${scale},a,b}` is b at scale mini, else a; `${stand_in:${method}}` the
    percentage of positives by which scale mini tells an LLM's annotators apart; `${packaged:x}` a file of this package;
    `${sweep_name:}` the name of the sweep's folder, outside experiments with the options that it sets, null for a single job;
    `${folder_name:x}` a text as the name of one folder."""
    OmegaConf.register_new_resolver("first", _first, replace=True)
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
    OmegaConf.register_new_resolver("folder_name", _folder_name, replace=True)
    OmegaConf.register_new_resolver("models", lambda further: 1 + len(further or {}), replace=True)
    OmegaConf.register_new_resolver("by_scale", lambda scale, full, mini: mini if scale == "mini" else full, replace=True)
    OmegaConf.register_new_resolver("stand_in", _stand_in, replace=True)
    OmegaConf.register_new_resolver("packaged", lambda path: str(ROOT / path), replace=True)


def _stand_in(method: str | None) -> float:
    shares = {"relsel": 50.0, "utilsel": 25.0, "union": 25.0}
    return shares.get((method or "").split("_")[0], 10.0)


def _sweep_name() -> str | None:
    """Folders of sweeps have no date, so that one that is started again finds its jobs; outside experiments all share one."""
    chosen = HydraConfig.get()
    if chosen.mode != RunMode.MULTIRUN:
        return None
    name = Path(chosen.sweep.dir).resolve().name
    left_out = set(chosen.job.config.override_dirname.exclude_keys)
    keys = {override.split("=")[0].lstrip("+~") for override in chosen.overrides.task} - left_out
    return f"{name} of {', '.join(sorted(keys))}"[:LONGEST_GROUP] if name == "sweep" and keys else name


def _folder_name(text: str) -> str:
    """Without slashes, which would make folders in folders; what file systems would not take is cut and told by its hash."""
    name = text.replace("/", "-")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}-{digest(text)[:8]}"


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None), None)


register_resolvers()  # at import: launchers take a job to other processes, which compose its config before they call it
