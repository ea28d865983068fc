"""What scores depend on besides the model: the content of the collection, lengths, precision and depth."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CONTENT = "content"


def measured_on(manifest: Mapping[str, Any], slug: str, parts: Sequence[str] = ()) -> dict[str, Any]:
    """By name, what the scores of a collection in a run folder depend on. `parts`: slugs of the parts of a set that counts as
    one; default the collection itself."""
    hashes = manifest.get("collections") or {}
    content = {CONTENT if part == slug else f"{CONTENT} of {part}": hashes[part] for part in parts or [slug] if part in hashes}
    return {**content, **{name.replace("_", " "): value for name, value in (manifest.get("measured") or {}).items()}}


def differences(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """What differs between runs, each a name and what `measured_on` tells of it, in words; empty where nothing is known to.
    A run that does not say, such as the lengths of BM25, differs from none."""
    runs = list(runs)
    said = []
    for fact in dict.fromkeys(fact for _, facts in runs for fact in facts):
        by_value: dict[Any, dict[str, None]] = {}
        for name, facts in runs:
            if fact in facts:
                by_value.setdefault(facts[fact], {})[name] = None
        if len(by_value) > 1:
            values = ", ".join(f"{value}: {' and '.join(names)}" for value, names in by_value.items())
            said.append(fact if fact.startswith(CONTENT) else f"{fact} ({values})")  # a hash says nothing to a reader
    return "; ".join(said)
