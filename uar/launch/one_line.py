"""Errors that a user can mend, in one line."""

import errno

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from uar.errors import UserError, chain_of
from uar.storage.files import NOT_WRITABLE

INTERNAL = ("object_type", "reference_type", "full_key", "To append", "See https://hydra.cc")
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def one_line(error: BaseException) -> str | None:
    """The line for the user; None for a fault of the program itself, which deserves its traceback."""
    for cause in chain_of(error):
        if isinstance(cause, UserError):
            return " ".join(str(cause).split())
        if isinstance(cause, OSError) and cause.errno in FULL:
            place = cause.filename2 or cause.filename or "the output folder"
            advice = "free some space and run the same command again: what was finished is kept"
            return f"no space left while writing {place} ({cause.strerror}); {advice}"
        if isinstance(cause, OSError) and cause.errno in NOT_WRITABLE and cause.filename and _said(error, cause):
            advice = "give a folder that can be (hydra.run.dir=, out=, store=), or mend its permissions"
            return f"{cause.filename} cannot be written or read ({cause.strerror}); {advice}"
    return about_config(error) if is_of_config(error) else None


def _said(error: BaseException, cause: BaseException) -> bool:
    """Whether `cause` is the error, or what it was raised from; not one that was being handled."""
    step: BaseException | None = error
    while step is not None and step is not cause:
        step = step.__cause__
    return step is cause


def is_of_config(error: BaseException) -> bool:
    return isinstance(error, HydraException | OmegaConfBaseException)


def about_config(error: BaseException) -> str:
    """Hydra's and OmegaConf's several lines as one, without their internals. What a cause says in names that were not filled
    in, such as `$FULL_KEY`, the error that came of it says in full."""
    lines: list[str] = []
    for cause in reversed([cause for cause in chain_of(error) if is_of_config(cause)]):
        for line in str(cause).split("Config search path")[0].splitlines():
            words = " ".join(line.split())
            if words and not words.startswith(INTERNAL) and "$FULL_KEY" not in words and "$KEY" not in words:
                lines.append(words.rstrip(".;"))
    return f"{'; '.join(dict.fromkeys(lines)).replace(':;', ':')}; --help lists the options and their choices"
