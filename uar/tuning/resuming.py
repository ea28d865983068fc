"""What a tuning is, as a hash: a run is only resumed as what it was, and another one starts with nothing of it."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from uar.collections import Collection
from uar.errors import UserError
from uar.machine.model_files import ADAPTER as PEFT
from uar.storage.files import digest, file_hash, read_json, write_json
from uar.tuning.base_model import BaseModel
from uar.tuning.rollouts import ROLLOUTS
from uar.tuning.task import Case
from uar.tuning.tuned_model import ADAPTER, MODEL

log = logging.getLogger(__name__)
TUNING, STORE = "tuning.json", "store"
FREE = ("name", "resume", "logger", "dev_questions", STORE)  # of the options: what may change when a run goes on


def settings_of(cfg: DictConfig, collection: Collection, base: BaseModel, cases: Sequence[Case]) -> str:
    """Hash of the options, of what the files and adapters say that they name, and of all that is learned."""
    kept = {name: node for name, node in cfg.items() if name not in FREE}
    plain = {n: OmegaConf.to_container(x, resolve=True) if OmegaConf.is_config(x) else x for n, x in kept.items()}
    learned = [(case.question.id, case.call.request.key(""), case.target) for case in cases]
    return digest(collection.hash, base.name, _by_content(plain), learned)


def begin(cfg: DictConfig, folder: Path, settings: str) -> bool:
    """Whether the run in the folder is trained already. What another run left is removed, unless it is to be resumed: then
    UserError where it was made with other options."""
    path = folder / TUNING
    if cfg.resume and path.is_file():
        if read_json(path)["settings"] != settings:
            raise UserError(
                f"{folder}: it was begun with other options, files of other content or another collection; give the command "
                f"of then with resume=true (only {', '.join(FREE)} may change), or another name="
            )
        return (folder / MODEL).is_dir()
    if cfg.resume:
        log.warning(
            "resume=true: %s holds no tuning, so there is nothing to go on from, and it starts at its beginning; give the "
            "name= or hydra.run.dir= of the run that was broken off",
            folder,
        )
    for name in ("checkpoints", MODEL, ADAPTER):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / ROLLOUTS).unlink(missing_ok=True)
    write_json(path, {"settings": settings, "done": False})
    return False


def _by_content(settings: Any) -> Any:
    """Options without stores, with a hash in the place of the name of a file or of adapters."""
    if isinstance(settings, dict):
        return {name: _by_content(value) for name, value in settings.items() if name != STORE}
    if isinstance(settings, list):
        return [_by_content(value) for value in settings]
    if not isinstance(settings, str):
        return settings
    named = Path(settings)
    if os.path.isfile(named):  # which a text may be too long for
        return file_hash(named)
    adapters = sorted(named.glob("adapter_*")) if os.path.isfile(named / PEFT) else []
    return [file_hash(path) for path in adapters] or settings
