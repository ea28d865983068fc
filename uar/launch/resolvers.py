"""Where the configs lie, and the resolvers that they use, such as `${first:a,b}`."""

import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from uar.storage.files import digest

PACKAGE = Path(__file__).resolve().parent.parent
PLACES = (PACKAGE / "conf", PACKAGE.parent / "conf")  # in a wheel, in the repository
CONF = next(place for place in PLACES if place.is_dir())
LONGEST_NAME = 200  # bytes of the name of a run's folder; file systems take 255
LONGEST_GROUP = 128  # letters of the name of a group that W&B takes


def register_resolvers() -> None:
    """`${first:a,b}` is the first of its values that is not null; `${models:${llms}}` counts the run's model and the
    further ones; `${by_scale:${scale},a,b}` is b at scale mini, else a; `${on_mini:${dataset.train},a,b}` is a on the
    packaged collection, else b; `${packaged:x}` a file of this package; `${review_folder:x}` the folder of the judgements
    x, of the first of several, outputs/review where there are none; `${sweep_name:}` the name of the sweep's folder,
    outside experiments with the options that it sets, null for a single job; `${folder_name:x}` a text as the name of one
    folder."""
    OmegaConf.register_new_resolver("first", _first, replace=True)
    OmegaConf.register_new_resolver("models", lambda further: 1 + len(further or {}), replace=True)
    OmegaConf.register_new_resolver("by_scale", lambda scale, full, mini: mini if scale == "mini" else full, replace=True)
    OmegaConf.register_new_resolver(
        "on_mini", lambda split, mini, other: mini if str(split).startswith("mini:") else other, replace=True
    )
    OmegaConf.register_new_resolver("packaged", lambda path: str(PACKAGE / path), replace=True)
    OmegaConf.register_new_resolver("review_folder", _review_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None), None)


def _review_folder(report: Any) -> str:
    first = Path(str(next(iter(report), "") if OmegaConf.is_list(report) else report))
    return str(first if first.is_dir() else first.parent if first.is_file() else "outputs/review")


def _sweep_name() -> str | None:
    """Folders of sweeps have no date, so that one that is started again finds its jobs; outside experiments all share one."""
    chosen = HydraConfig.get()
    if chosen.mode != RunMode.MULTIRUN:
        return None
    name = Path(chosen.sweep.dir).resolve().name
    left_out = set(chosen.job.config.override_dirname.exclude_keys)
    keys = {override.split("=")[0].lstrip("+~") for override in chosen.overrides.task} - left_out
    return f"{name} of {', '.join(sorted(keys))}"[:LONGEST_GROUP] if name == "sweep" and keys else name


def folder_name(text: str) -> str:
    """Without slashes, which would make folders in folders, and `${`, which Hydra would look up. A name that is too long for
    file systems is cut and ends with the hash of the whole."""
    name = text.replace("/", "-").replace("${", "-{")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}-{digest(text)[:8]}"


def is_cut(name: str) -> bool:
    """Whether `folder_name` cut it: within a letter of the longest, of up to four bytes, and with a hash at its end."""
    return len(name.encode()) > LONGEST_NAME - 4 and re.search(r"-[0-9a-f]{8}$", name) is not None
