"""The errors a user sees as one line."""


class UserError(Exception):
    """Something the user can mend: the message says what was found, where, what is allowed and what to do."""


class DataError(UserError):
    """A fault in an input file; names the file and, where there is one, the line."""

    def __init__(self, path: object, message: str, line: int | None = None) -> None:
        super().__init__(f"{path}{'' if line is None else f':{line}'}: {message}")


class UnknownQueries(UserError):
    """A file of pools or of a run knows none of the queries that it was asked for."""


class UnknownPassage(UserError):
    """A run or a pool names a passage that the corpus lacks."""


class MissingModel(UserError):
    """A model, or the package that brings it, is not there."""


class EngineError(UserError):
    """An LLM engine cannot go on (server down, model missing)."""


def chain_of(error: BaseException) -> list[BaseException]:
    """An error and what it came from, each once: a chain may go in a circle."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return chain
