"""Errors that a user can mend, in one line."""

import errno

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from uar.errors import UserError

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
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _about_config(error)
    return None


def chain_of(error: BaseException) -> list[BaseException]:
    """An error and what it came from, each once: a chain may go in a circle."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return chain


def _about_config(error: BaseException) -> str:
    """Hydra's and OmegaConf's several lines as one, without their internals."""
    lines: list[str] = []
    for cause in reversed(chain_of(error)):
        for line in str(cause).split("Config search path")[0].splitlines():
            words = " ".join(line.split())
            if words and not words.startswith(("object_type", "reference_type", "full_key", "To append")):
                lines.append(words.rstrip(".;"))
    return f"{'; '.join(dict.fromkeys(lines)).replace(':;', ':')}; --help lists the options and their choices"
