"""What a `_target_` of a config names."""

from typing import Any

from hydra.utils import get_object

from uar.errors import UserError


def located(target: str, of: str) -> Any:
    """The class or function. `of`: the option or file that names it. UserError where it is not there."""
    try:
        return get_object(target)
    except ImportError as error:
        file = f"{target.partition('.')[0]}.py"
        why = " ".join(str(error).split())
        raise UserError(f"{of}: _target_={target}: {why}; put {file} into the folder of the command, or install it") from error
