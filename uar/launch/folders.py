"""Names of run folders: no two jobs get the same."""

from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict, read_write


def names_its_folder(hydra: Any) -> bool:
    """Whether the command line says where the run writes."""
    return any(o.startswith("name=") for o in hydra.overrides.task) or any("run.dir=" in o for o in hydra.overrides.hydra)


def make_new_folder(config: DictConfig) -> None:
    """Make the folder of a run that the clock names. Where another run of the same second has it, a number is added."""
    name = config.name
    for number in count(2):
        try:
            Path(config.hydra.run.dir).mkdir(parents=True)
            return
        except FileExistsError:
            config.name = f"{name}-{number}"


def name_what_is_swept(config: DictConfig) -> None:
    """Options that names of folders leave out stand in them all the same where a sweep gives them several values."""
    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
    left_out = list(config.hydra.job.config.override_dirname.exclude_keys)
    if swept & set(left_out):
        kept = ",".join(key for key in left_out if key not in swept)
        with read_write(config), open_dict(config):  # jobs are composed with these
            config.hydra.overrides.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{kept}]")
