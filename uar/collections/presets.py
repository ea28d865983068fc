"""Presets: one name for several collections, wherever a list of references is given (`presets.yaml`)."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from uar.collections.reference import slug

Scores = Mapping[str, Mapping[str, float]]  # by slug and measure
T = TypeVar("T")


@cache
def _known() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parent / "presets.yaml").read_text(encoding="utf-8"))


def expand(references: Sequence[str] | str) -> list[str]:
    """References with presets (`beir`, `msmarco`, `beir-scifact`) replaced by their members, each once. What is no preset
    stays, so that names of splits may stand in the list."""
    presets = _known()["presets"]
    found: dict[str, None] = {}
    for name in [references] if isinstance(references, str) else references:
        found.update(dict.fromkeys(expand(presets[name]) if name in presets else [name]))
    return list(found)


def settings_of(dataset_id: str) -> dict[str, Any]:
    """Fields of `Collection` in which an ir_datasets id departs from the defaults."""
    return next((dict(v) for begin, v in _known()["settings"].items() if dataset_id.startswith(begin)), {})


def averaged(scores: Scores) -> dict[str, dict[str, float]]:
    """Scores by slug, where the parts of a set that counts as one (CQADupStack) are replaced by their mean, measure by
    measure, in the place of the first. A set of which a part is missing stays in parts."""
    rows = {name: dict(values) for name, values in scores.items()}
    for name, parts in whole_sets(scores).items():
        measures = [m for m in rows[parts[0]] if all(m in rows[part] for part in parts)]
        mean = {m: sum(rows[part][m] for part in parts) / len(parts) for m in measures}
        rows = with_whole(rows, name, parts, mean)
    return rows


def with_whole(values: Mapping[str, T], name: str, parts: Sequence[str], whole: T) -> dict[str, T]:
    """`values` by slug, with `whole` under `name` in the place of the first of `parts`, and without the others."""
    kept = {slug: value for slug, value in values.items() if slug not in parts[1:]}
    return {name if slug == parts[0] else slug: whole if slug == parts[0] else value for slug, value in kept.items()}


def whole_sets(slugs: Iterable[str]) -> dict[str, list[str]]:
    """Slugs of the parts, in the order given, of each set that counts as one and of which all parts are among `slugs`."""
    given = list(slugs)
    sets = {name: {slug(reference) for reference in expand(name)} for name in _known()["averaged"]}
    return {name: [at for at in given if at in parts] for name, parts in sets.items() if parts <= set(given)}
