"""The config of the command that a round of a loop asks with."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from uar.errors import UserError
from uar.launch.command_options import compose

SHARED = ("dataset", "candidates", "annotator", "llm", "llms", "store", "seed")  # options of both commands


def round_config(loop: DictConfig, group: str, command: str, name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Of the config `name`: its options as the `group` of the loop's config says, and those that both have as the loop's.
    `command`: as users know it. UserError where the group has an option that it lacks."""
    asked = compose(name, overrides).cfg
    OmegaConf.set_struct(asked, True)
    try:
        asked.merge_with(loop[group])
    except OmegaConfBaseException as error:
        raise UserError(f"{group}={loop[group]}: no options of {command} ({str(error).splitlines()[0]})") from error
    with open_dict(asked):
        for option in SHARED:
            own = loop[option]
            asked[option] = OmegaConf.to_container(own, resolve=True) if OmegaConf.is_config(own) else own
    return asked
