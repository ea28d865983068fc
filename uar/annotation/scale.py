"""A graded scale and its definition, from a packaged name or a YAML file."""

from functools import cache
from pathlib import Path

from uar.errors import DataError
from uar.llm.prompts.template import packaged, parsed_yaml

Scale = tuple[tuple[int, str], ...]


def load_scale(name: str) -> Scale:
    """(grade, meaning) pairs from grade 0 up, as the file is now; at most ten grades, so that each is one digit."""
    path = packaged("scales").get(name, Path(name))
    if not path.is_file():
        raise DataError(name, f"no such scale; give a YAML file with `grades` or one of {', '.join(packaged('scales'))}")
    return _scale(path, path.read_bytes())


@cache
def _scale(path: Path, text: bytes) -> Scale:
    content = parsed_yaml(path, text)
    grades = content.get("grades") if isinstance(content, dict) else None
    if not isinstance(grades, dict) or len(grades) < 2 or not all(isinstance(v, str) for v in grades.values()):
        raise DataError(path, "a scale needs `grades`, at least two of {number: meaning}")
    if not all(type(grade) is int for grade in grades) or sorted(grades) != list(range(len(grades))) or len(grades) > 10:
        raise DataError(path, f"grades {list(grades)}; they must be 0, 1, ... and at most ten")
    return tuple(sorted(grades.items()))
