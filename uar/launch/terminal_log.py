"""What of the log the terminal shows: lines of uar and of the user's own code, and errors of anybody. Lines of other packages,
their warnings too, are in the log file of the run alone."""

import logging
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

PACKAGES = {"site-packages", "dist-packages"}  # folders that installers fill
LIBRARY = Path(sysconfig.get_path("stdlib"))
OWN = Path(__file__).resolve().parent.parent
WARNINGS = "py.warnings"


def tidy_terminal(process: int) -> None:
    """Of the job whose log Hydra has just set up. `process`: its number among those of the run; others than the first show
    errors alone, since they say what the first one says. `hydra.verbose=true` shows everything."""
    root = logging.getLogger()
    for logger in _existing():
        _hand_on(logger)
    logging.setLoggerClass(_Library)
    warnings.showwarning = _log_warning
    if root.level <= logging.DEBUG:
        return
    for handler in [handler for handler in root.handlers if _is_console(handler)]:
        root.removeHandler(handler)
        root.addHandler(_Terminal(logging.ERROR if process else logging.NOTSET))


def is_ours(record: logging.LogRecord) -> bool:
    """Whether a line is of uar or of the user's own code, by the file that it comes from. A warning that uar causes in another
    package is of that."""
    warned_in = getattr(record, "warned_in", None)
    path = Path(warned_in or record.pathname)
    if record.name.startswith("uar.") or path.is_relative_to(OWN):
        return warned_in is None
    return not (PACKAGES & set(path.parts) or path.is_relative_to(LIBRARY))


class _Terminal(logging.StreamHandler):
    """Short lines on what is stdout when they come: a bar that is drawn meanwhile moves down."""

    def __init__(self, level: int) -> None:
        logging.Handler.__init__(self, level)
        self.setFormatter(_Short("[%(asctime)s] %(message)s", "%H:%M:%S"))
        self.addFilter(lambda record: is_ours(record) or record.levelno >= logging.ERROR)

    @property
    def stream(self) -> TextIO:
        return sys.stdout


class _Short(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        who = "" if is_ours(record) else f"{record.name}: "
        return f"[{record.asctime}] {level}{who}{record.message}"


class _Library(logging.getLoggerClass()):  # type: ignore[misc]
    """A logger made from now on. A package that gives its own one a handler of the console, as transformers, vLLM, Lightning
    and huggingface_hub do, hands its lines on to the run's handlers instead."""

    _handed_on = False

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802
        if _is_console(hdlr):
            self._handed_on = True
        else:
            super().addHandler(hdlr)

    @property
    def propagate(self) -> bool:
        return self._handed_on or self._propagate

    @propagate.setter
    def propagate(self, value: bool) -> None:
        self._propagate = value


def _existing() -> Iterator[logging.Logger]:
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _hand_on(logger: logging.Logger) -> None:
    consoles = [handler for handler in logger.handlers if _is_console(handler)]
    for handler in consoles:
        logger.removeHandler(handler)
    if consoles:
        logger.propagate = True


def _is_console(handler: logging.Handler) -> bool:
    """Of stdout or stderr, as they are or were at first."""
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, logging.StreamHandler) and (isinstance(handler, _Terminal) or handler.stream in streams)


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
) -> None:
    """As `warnings.showwarning`, with the file that the warning is of for `is_ours`."""
    text = f"{filename}:{lineno}: {category.__name__}: {message}"
    if file is not None:
        file.write(f"{text}\n")
    else:
        logging.getLogger(WARNINGS).warning("%s", text, extra={"warned_in": filename})
