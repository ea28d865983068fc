"""name=value arguments of a benchmark."""

import inspect
import sys
from collections.abc import Callable
from typing import Any


def called(main: Callable[..., None]) -> None:
    """Calls `main` with the arguments of the command line, each of the type of its default; others, where `main` takes any,
    are whole numbers or text."""
    parameters = inspect.signature(main).parameters
    kinds = {name: type(p.default) for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    unknown = sorted(given.keys() - kinds.keys())
    if unknown and len(kinds) == len(parameters):
        sys.exit(f"{', '.join(unknown)}: unknown; allowed are {', '.join(kinds)}")
    read: dict[str, Any] = {
        name: kinds[name](value) if name in kinds else int(value) if value.isdecimal() else value
        for name, value in given.items()
    }
    main(**read)
