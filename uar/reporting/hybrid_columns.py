"""Values of hybrid tests: from their folders to those of the runs that they measured, known by the hash of the file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from uar.reporting.run_folders import RunFolder, unreadable
from uar.storage.files import file_hash, read_json

ByTest = Mapping[str, Mapping[str, Mapping[str, float]]]  # name of a test -> hash of a run file -> measure -> value


def with_hybrid(runs: Sequence[RunFolder], notes: list[str]) -> list[RunFolder]:
    """The runs; those that a hybrid test among them measured have its values as a collection `SLUG.hybrid`, of several tests
    `SLUG.hybrid (TEST)`: each has judgements of its own."""
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for run in runs:
        if (run.path / "hybrid.parquet").is_file():
            try:
                values, hashes = read_json(run.path / "metrics.json")["hybrid"], read_json(run.path / "manifest.json")["runs"]
                measured[run.name] = {hashes[name]: values[name] for name in hashes}
            except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
                notes.append(unreadable(run.name, "metrics.json or manifest.json", error))
    return [_with(run, measured) for run in runs] if measured else list(runs)


def _with(run: RunFolder, measured: ByTest) -> RunFolder:
    hashes = {path: file_hash(path) for path in sorted((run.path / "runs").glob("*.trec"))}
    found = {
        f"{path.stem}.hybrid" + (f" ({test})" if len(measured) > 1 else ""): values[content]
        for test, values in measured.items()
        for path, content in hashes.items()
        if content in values
    }
    return replace(run, metrics={**run.metrics, "retrieval": {**run.metrics["retrieval"], **found}}) if found else run
