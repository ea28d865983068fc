"""Jobs of a sweep: one that is done is not run again, one that fails is remembered until the others have ended."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from uar.launch.folders import make_new_folder, name_what_is_swept, names_its_folder
from uar.launch.owner import MARK
from uar.launch.resolvers import PACKAGE
from uar.launch.side_by_side import jobs_side_by_side, started_outside, which_process
from uar.machine.waiting import set_waiting
from uar.storage.files import digest, file_hash, matching, read_json, write_json

log = logging.getLogger(__name__)
FINISHED, FAILED = "finished.json", "failed.json"
MODELS = ("model", "base", "adapter", "scores", "doubted_by")
LABELS = ("path", "run", "runs", "annotation", "labels", "judgements", "against", "baseline")
FOLDERS = ("answers", *MODELS, *LABELS)  # options that may name folders
PACKAGED = ("prompts", "scales")  # folders of files that options name without their ending
NO_MATTER = ("name", "resume", "logger")  # of a config: another value gives the same run
folders: list[Path] = []  # of the sweeps that this process has started


class SweepFolder(Callback):
    """Names the folder of a run or of the jobs of a sweep, before they start."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if not names_its_folder(config.hydra) and not started_outside():
            make_new_folder(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        set_waiting(jobs_side_by_side(config.hydra))
        name_what_is_swept(config)
        folders.append(Path(str(config.hydra.sweep.dir)).absolute())


def in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def once(task: Callable[[DictConfig, Path], Any], cfg: DictConfig, folder: Path) -> Any:
    """Run a job of a sweep and mark its folder as finished; where it was finished before with the same composed config and the
    same files that it names, return what it returned then. A job of another config or of changed files, or one that was
    killed, runs. The store is not compared, since jobs themselves write there: to run a finished job on labels that it got
    since, delete its folder."""
    mark = folder / FINISHED
    made_from = {"config": config_hash(cfg), "files": files_hash(cfg)}
    if mark.is_file():
        known = read_json(mark)
        if all(known.get(name, value) == value for name, value in made_from.items()):
            log.info("Skipped: %s was finished before with this config; delete the folder to run it again", folder)
            return known["returned"]
        if which_process() == 0:
            mark.unlink(missing_ok=True)
    found = task(cfg, folder)
    if which_process() == 0:
        write_json(mark, {**made_from, "returned": found if isinstance(found, int | float) else None})
    return found


def config_hash(cfg: DictConfig) -> str:
    """Of all options that the results may depend on."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return digest({key: value for key, value in plain.items() if key not in NO_MATTER})


def files_hash(cfg: DictConfig) -> str:
    """Of the content of the files that a config names: collections, labels, clicks, pools, answers, prompts, models."""
    hashes: list[list[str]] = []
    packaged = {path.stem: path for folder in PACKAGED for path in PACKAGE.rglob(f"{folder}/*.yaml")}
    for path in sorted(set(_named(OmegaConf.to_container(cfg, resolve=True), packaged, False))):
        of_path = sorted(filter(_is_content, path.rglob("*"))) if path.is_dir() else [path] if path.is_file() else []
        hashes += [[str(p), file_hash(p)] for p in of_path]
    return digest(hashes)


def _is_content(path: Path) -> bool:
    """Whether a path is a file that no job writes where it is skipped."""
    return path.is_file() and path.suffix != ".log" and path.name not in (MARK, FINISHED, FAILED)


def _named(value: Any, packaged: Mapping[str, Path], may_be_folder: bool) -> Iterator[Path]:
    """`may_be_folder`: whether the value stands under one of `FOLDERS`, and may be a folder or a pattern."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _named(below, packaged, may_be_folder or key in FOLDERS)
    elif isinstance(value, list):
        for below in value:
            yield from _named(below, packaged, may_be_folder)
    elif isinstance(value, str) and value.startswith("local:"):
        yield Path(value.removeprefix("local:").rpartition(":")[0])
    elif isinstance(value, str) and value in packaged:
        yield packaged[value]
    elif isinstance(value, str) and value and (may_be_folder or os.path.isfile(value)):
        yield from matching(value)


def remember_failure(folder: Path, sweep: str, line: str) -> None:
    """Leave `line` in the job's folder, where the process that started the sweep finds it wherever the job ran."""
    if which_process() == 0:
        write_json(folder / FAILED, {"sweep": sweep, "error": line})


def forget_failure(folder: Path) -> None:
    if which_process() == 0:
        (folder / FAILED).unlink(missing_ok=True)


def failures(sweep: str) -> list[str]:
    """`FOLDER: what went wrong` of every job of the sweep that failed, wherever it ran, by folder."""
    found = []
    for path in sorted(p for root in set(folders) for p in root.rglob(FAILED)):
        try:
            said = read_json(path)
        except json.JSONDecodeError:
            continue
        if said.get("sweep") == sweep:
            found.append(f"{os.path.relpath(path.parent)}: {said['error']}")
    return found
