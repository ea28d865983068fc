"""Which collections a run was scored on, as its config says."""

from collections.abc import Sequence
from typing import Any

from uar.collections.presets import expand
from uar.collections.reference import parse, resolve
from uar.errors import UserError


def scored_references(given: Any, path: str | None) -> list[str]:
    """Of `collections` of an evaluation, or `dataset.test` of a training with its `dataset.path`; what is understood no more
    is left out."""
    return resolved(expand([str(name) for name in given] if isinstance(given, list) else str(given or [])), path)


def resolved(names: Sequence[str], path: Any) -> list[str]:
    """Names of splits and references as references, without those that are none."""
    found = []
    for name in names:
        try:
            reference = resolve(name, path)
            found += [reference] if reference and parse(reference) else []
        except UserError:
            continue
    return found
