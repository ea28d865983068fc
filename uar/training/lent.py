"""Jobs of several sweeps that would train the same model, such as the rows of a paper's tables: the first one trains it."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from uar.storage.files import matching, read_json
from uar.storage.manifest import read_manifest, software
from uar.training.exported import is_done

log = logging.getLogger(__name__)
CHECKPOINTS, MODEL = "checkpoints", "model"
IDENTITY = Path(CHECKPOINTS, "identity.json")


def borrow(pattern: str, folder: Path) -> bool:
    """Copy to `folder` the model of a finished run among those that `pattern` (a glob) matches, one with the identity that
    stands in `folder` and of the same software. Whether there was one: `folder` is then that of a finished training."""
    identity = read_json(folder / IDENTITY)
    for lender in matching(pattern):
        if lender.resolve() == folder.resolve() or not _has_trained(lender, identity):
            continue
        manifest = read_manifest(lender)
        if any(manifest.get(name) != value for name, value in software().items()):
            log.info("%s trained the same model with another version of the software, so that it is trained anew", lender)
            continue
        for name in (MODEL, CHECKPOINTS):
            shutil.copytree(lender / name, folder / name, dirs_exist_ok=True)
        log.info("The model is that of %s, which trained the same; it is not trained again (trained_by=null trains)", lender)
        return True
    return False


def _has_trained(run: Path, identity: Mapping[str, str]) -> bool:
    there = (run / IDENTITY).is_file() and (run / MODEL).is_dir() and is_done(run / CHECKPOINTS)
    return there and read_json(run / IDENTITY) == identity
