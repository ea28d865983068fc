"""What kind of value an option takes, by the one that its config has."""

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from uar.errors import UserError
from uar.launch.command_options import Taken
from uar.launch.located import located
from uar.launch.override_text import SEARCHPATH, written
from uar.launch.resolvers import CONF

LISTED = {"trainer.devices"}  # numbers that may be lists as well
ANY_SIGN = "trainer."  # Lightning takes -1 for all
KINDS = {bool: "true or false", int: "a whole number", float: "a number"}
OPTIONAL = {"near_copy", "rag.limit"}  # numbers that are arguments of no class and may be null


def check_types(taken: Taken) -> None:
    """UserError where the command line gives text for a number, a fraction for a whole number, a number below 0, one for a
    list, or null for what cannot be left out."""
    task, of_hydra = HydraConfig.get().overrides.task, HydraConfig.get().overrides.hydra
    groups = [o for o in task if (CONF / o.split("=")[0].split("@")[0]).is_dir()]
    values = [o for o in task if o not in groups and o[0] not in "+~"]
    if not values:
        return
    places = [o for o in of_hydra if o.split("=")[0].lstrip("+") == SEARCHPATH]  # of the user's own choices
    defaults = hydra.compose(taken.name, [*groups, *places])
    for override in values:
        key = override.split("=")[0]
        default, given = (OmegaConf.select(c, key, throw_on_missing=False) for c in (defaults, taken.cfg))
        wanted = _wanted(key, default, given)
        if wanted is None and given is None and _is_needed(taken, key, default):
            wanted = "a value"
        if wanted is not None:
            shown = OmegaConf.to_container(default) if OmegaConf.is_list(default) else default
            found = "null" if given is None else repr(given)
            raise UserError(f"{key}={found}: {wanted} is needed" + f", such as {shown!r}" * (shown != []))


def one_or_several(option: str, given: Any) -> list[str]:
    """Names, such as of files, of an option that takes one or a list of them; one that is a whole number is its digits.
    UserError for another thing, or a list of others."""
    listed: Sequence[Any] = list(given) if OmegaConf.is_list(given) or isinstance(given, list | tuple) else [given]
    if not all(isinstance(one, str) or type(one) is int for one in listed):
        raise UserError(f"{option}={written(given)}: a name or a list of names is needed")
    return [str(one) for one in listed]


def _wanted(key: str, default: Any, given: Any) -> str | None:
    """The kind of value that is needed and was not given; None where it was, or any will do."""
    if OmegaConf.is_list(default):
        names = len(default) > 0 and all(isinstance(one, str) for one in default)
        if OmegaConf.is_list(given):
            return "a list of names" if names and not all(isinstance(one, str) for one in given) else None
        return "a list" if isinstance(given, bool | int | float) else None
    kind = next((k for k in KINDS if type(default) is k), None)
    fits = kind is None or given is None or type(given) is kind or (kind is float and type(given) is int)
    fits = fits or (key in LISTED and OmegaConf.is_list(given) and all(type(part) is kind for part in given))
    if not fits and kind is not None:
        return KINDS[kind]
    below = type(given) in (int, float) and given < 0 and kind in (int, float) and default >= 0
    return "a number from 0 up" if below and not key.startswith(ANY_SIGN) else None


def _is_needed(taken: Taken, key: str, default: Any) -> bool:
    """Whether an option of numbers, or of a list that is not empty, takes no null: by the type of the argument that it is, and
    where it is none of a class, always but for `OPTIONAL`."""
    if type(default) not in KINDS and not (OmegaConf.is_list(default) and len(default)):
        return False
    place, _, name = key.rpartition(".")
    target = OmegaConf.select(taken.cfg, f"{place}._target_" if place else "_target_", throw_on_missing=False)
    if target:
        argument = signature(located(target, place)).parameters.get(name)
        return argument is not None and argument.annotation is not Parameter.empty and "None" not in str(argument.annotation)
    return key not in OPTIONAL
