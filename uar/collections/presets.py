"""Presets: one name for several collections, wherever a list of references is given (`presets.yaml`)."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Scores = Mapping[str, Mapping[str, float]]  # by slug and measure


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
    from uar.collections.reference import slug  # which opens collections, and so needs the settings from here

    rows = {name: dict(values) for name, values in scores.items()}
    for name in _known()["averaged"]:
        parts = [slug(reference) for reference in expand(name)]
        if all(part in rows for part in parts):
            measures = [m for m in rows[parts[0]] if all(m in rows[part] for part in parts)]
            mean = {m: sum(rows[part][m] for part in parts) / len(parts) for m in measures}
            first = next(at for at in rows if at in parts)
            rows = {
                name if at == first else at: mean if at == first else values
                for at, values in rows.items()
                if at == first or at not in parts
            }
    return rows
