"""Run folders found by pattern: metrics, config and what else they hold."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml

from uar.collections.presets import Scores, averaged
from uar.errors import UserError
from uar.evaluation.metrics_file import PARTS, given_kept, read_metrics
from uar.storage.files import matching, read_json
from uar.storage.label_files import BY_PEOPLE, NAME, read_label_columns
from uar.storage.manifest import read_manifest

HELD = ("metrics.json", "agreement.json", "ledger.json")
LEDGER = "_ledger.json"  # ends the names of those of calls besides labels
SEARCH = ("search", "expand", "rerank")  # groups of a config that say how a model ranks
RANKING = (*SEARCH, "run", "pooling", "normalize", "query_prefix", "passage_prefix")
WRITES = ("expand.writer", "expand.documents")
NO_RANKING = ("search.embeddings", "search.processes", "search.recall_queries")


@dataclass(frozen=True)
class RunFolder:
    """`config`: by dotted name; a run that evaluates a trained model has that model's config under its own. `ledger`: with
    `whole`, the seconds, GPU-hours and cost of all calls that the labels rest on, whichever run made them. `trained`: the
    folder where that model was trained; `as_trained`: whether it ranks as there."""

    path: Path
    name: str
    metrics: Mapping[str, Any]
    config: Mapping[str, Any]
    agreement: Mapping[str, Any]
    ledger: Mapping[str, Any]
    trained: Path | None = None
    as_trained: bool = True

    @cached_property
    def slugs(self) -> list[str]:
        """Collections that it has scores of."""
        return list(dict.fromkeys([*self.metrics["retrieval"], *self.metrics["rag"]]))

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.path)

    @cached_property
    def asked(self) -> Mapping[str, Mapping[str, float]]:
        """Numbers of the ledgers of calls besides those of labels, by what they were for, such as `rerank`; of what RAG asked,
        such as `rag answers`, sums over the collections. One that cannot be read says nothing."""
        found: dict[str, dict[str, float]] = {}
        for path in sorted(self.path.glob(f"*{LEDGER}")):
            use, spent = path.name.removesuffix(LEDGER), _object(path, self.name, [])
            for name, ledger in _ledgers(use, spent):
                own = found.setdefault(name, {})
                for key, value in ledger.items():
                    if isinstance(value, int | float):
                        own[key] = own.get(key, 0) + value
        return found

    @cached_property
    def gate(self) -> dict[str, Any]:
        """The decision of an annotate run's gate; empty where it had none, or the file cannot be read."""
        return _object(self.path / "gate.json", self.name, [])

    @cached_property
    def given_kept(self) -> bool:
        """Whether the run's model has the weights from before its training."""
        train = self.metrics["train"] if self.trained is None else _object(self.trained / HELD[0], self.name, []).get("train")
        return bool(given_kept(train or {}))

    @cached_property
    def learnt(self) -> dict[str, int]:
        """`questions` that the run's model was trained on, and those that `people` labelled, for training or for `fitted_on`;
        empty where it was not trained, or the labels cannot be read."""
        if self.given_kept:
            return {"questions": 0, "people": 0}
        path = (self.trained or self.path) / NAME
        if "label_source._target_" not in self.config or not path.is_file():
            return {}
        try:
            table = read_label_columns(path, ("query_id", "doc_id", "label", "source", "weight"))
        except UserError:
            return {}
        counts = pc.not_equal(pc.fill_null(table["weight"], 1.0), 0.0)
        by_people = pc.and_(counts, pc.match_substring_regex(table["source"], BY_PEOPLE))
        masks = {"questions": counts, "people": by_people}
        found = {name: set(pc.unique(table["query_id"].filter(mask)).to_pylist()) for name, mask in masks.items()}
        found["people"].update(self.fitted_on)
        return {name: len(questions) for name, questions in found.items()}

    @cached_property
    def fitted_on(self) -> list[str]:
        """Questions whose human labels told how several annotators are joined (combine=learned)."""
        used = read_manifest(self.trained or self.path).get("annotations") or []
        return [q for facts in used if isinstance(facts, dict) for q in facts.get("human_questions", ())]

    def keeps(self, slug: str) -> bool:
        """Whether it has scores of the single questions of a collection."""
        return (self.path / "scores" / f"{slug}.parquet").is_file()


@dataclass(frozen=True)
class Found:
    """Run folders in the order of the patterns, and what is missing, in words."""

    runs: list[RunFolder]
    notes: list[str]


def find_runs(patterns: Sequence[str]) -> Found:
    """Folders that hold metrics.json, agreement.json or ledger.json: those that the patterns name, and those at any depth
    below them. UserError where there is none. A file that cannot be read, or a run's folder with a config alone, is a note."""
    places: dict[Path, Path] = {}  # each folder once, as it was first named
    for pattern in patterns:
        for top in matching(pattern):
            for path in _run_folders(top):
                places.setdefault(path.resolve(), path)
    notes: list[str] = []
    names = _names(list(places.values()))
    runs = []
    for path in places.values():
        if _is_run(path):
            runs.append(_read(path, names[path], notes))
        else:
            notes.append(f"{names[path]}: no metrics.json; the run has not ended, or failed (see its uar.log)")
    if not runs:
        raise UserError(
            f"runs={', '.join(patterns)}: no folder with a metrics.json there or below; give run folders, folders of them or "
            "patterns, such as runs=outputs"
        )
    return Found(runs, notes)


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in HELD)


def _run_folders(top: Path) -> Iterator[Path]:
    """The folder and those below it that are of a run. A folder with a config alone is one that has not ended, unless it lies
    in a run's: trackers keep configs of their own there."""
    if not top.is_dir():
        return
    inside: set[Path] = set()
    for place, folders, files in os.walk(top):
        path = Path(place)
        folders.sort()
        within = path.parent in inside
        if set(HELD) & set(files) or ("config.yaml" in files and not within):
            yield path
            within = True
        if within:
            inside.add(path)


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """The last parts of the paths, as few as tell them apart."""
    parts = {path: path.resolve().parts for path in paths}
    for length in range(1, max(map(len, parts.values()), default=1)):
        names = {path: "/".join(p[-length:]) for path, p in parts.items()}
        if len(set(names.values())) == len({p for p in parts.values()}):
            return names
    return {path: str(path) for path in paths}


def _read(path: Path, name: str, notes: list[str]) -> RunFolder:
    metrics: Mapping[str, Any] = {part: {} for part in PARTS}
    try:
        metrics = read_metrics(path)
        metrics = {**metrics, "retrieval": _with_means(metrics["retrieval"])}
    except (OSError, ValueError, AttributeError) as error:
        notes.append(unreadable(name, "metrics.json", error))
    agreement, ledger = (_object(path / file, name, notes) for file in HELD[1:])
    config = read_config(path, name, notes)
    trained, as_trained = _trained(path, config), True
    if trained:
        before = read_config(trained, name, notes)
        as_trained = _ranking(config) == _ranking(before)
        own = {key: value for key, value in config.items() if value is not None}
        config = {**{key: value for key, value in before.items() if _group(key) not in SEARCH}, **own}
    return RunFolder(path, name, metrics, config, agreement, _with_whole(ledger), trained, as_trained)


def _ranking(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of how a model ranks; an expansion that writes nothing says nothing of it."""
    said = {key: value for key, value in config.items() if value is not None and key not in NO_RANKING}
    groups = RANKING if any(key.startswith(WRITES) for key in said) else set(RANKING) - {"expand"}
    return {key: value for key, value in said.items() if _group(key) in groups}


def _group(key: str) -> str:
    return key.partition(".")[0]


def _with_means(scores: Scores) -> dict[str, Any]:
    """With the mean of a set that counts as one (CQADupStack) where all of its parts are there."""
    return {**scores, **{slug: values for slug, values in averaged(scores).items() if slug not in scores}}


def _ledgers(use: str, spent: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Of a file: one, or one a collection and part."""
    if "calls" in spent:
        yield use, spent
        return
    for of_collection in spent.values():
        for part, ledger in of_collection.items():
            yield f"{use} {part}", ledger


def _with_whole(ledger: Mapping[str, Any]) -> Mapping[str, Any]:
    thousand, queries = ledger.get("per_1000_queries"), ledger.get("queries")
    if not isinstance(thousand, Mapping) or not isinstance(queries, int):
        return ledger
    known = {name: thousand[name] for name in ("seconds", "gpu_hours", "cost") if isinstance(thousand.get(name), int | float)}
    return {**ledger, "whole": {name: value * queries / 1_000 for name, value in known.items()}}


def _object(path: Path, name: str, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        notes.append(unreadable(name, path.name, error))
        return {}
    return found if isinstance(found, dict) else {}


def read_config(path: Path, name: str, notes: list[str]) -> dict[str, Any]:
    """`config.yaml` by dotted name; empty, and a note, where it is missing or broken."""
    try:
        found = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        notes.append(unreadable(name, "config.yaml", error))
        return {}
    return dict(_dotted(found, "")) if isinstance(found, dict) else {}


def _dotted(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _trained(path: Path, config: Mapping[str, Any]) -> Path | None:
    model = config.get("model")
    if not isinstance(model, str):
        return None
    folder = Path(model).resolve().parent
    return folder if (folder / "config.yaml").is_file() and folder != path.resolve() else None


def unreadable(name: str, file: str, error: Exception) -> str:
    """The note on a file of a run that is missing or broken."""
    why = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"
    return f"{name}: {file}: {why}"
