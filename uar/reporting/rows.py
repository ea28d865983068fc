"""Rows of tables: runs that differ in their seed alone are one."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from uar.errors import DataError, UserError
from uar.evaluation.score_files import Values
from uar.evaluation.significance import read_scores
from uar.launch.resolvers import is_cut
from uar.reporting.run_folders import RunFolder

JUDGED, AGREEMENT = "judged", "agreement"  # in metrics.json, under rag: what is told of measures that an LLM judges
PART = ".seed"  # ends the name of a part's seed
BESIDE = ("seed", "name", "resume", "baseline", "model")  # do not tell one method from another
OVERRIDE = re.compile(r",(?=[+~]*[\w./@-]+=)")  # between overrides in a folder's name, and not between the parts of a list
Seed = tuple[RunFolder, ...]  # the run that trained, and those that evaluated its model on further collections


@dataclass(frozen=True)
class Row:
    name: str
    seeds: tuple[Seed, ...]

    @property
    def first(self) -> RunFolder:
        return self.seeds[0][0]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.first.config

    @property
    def folders(self) -> list[RunFolder]:
        return [run for seed in self.seeds for run in seed]

    def values(self, part: str, slug: str, measure: str) -> list[float]:
        """A value a seed that has it; see `by_seed`."""
        return [value for value in self.by_seed(part, slug, measure) if value is not None]

    def by_seed(self, part: str, slug: str, measure: str) -> list[float | None]:
        """A value a seed, None where it has none. `part`: retrieval, rag (`EM (oracle)`: of that line), agreement, ledger,
        learnt (`RunFolder.learnt`), time, search, which is what a search says of itself, or asked (`RunFolder.asked`), where
        `slug` is what for. Else it belongs to retrieval, rag and search. `measure` may be dotted."""
        return [next((v for run in seed if (v := _value(run, part, slug, measure)) is not None), None) for seed in self.seeds]

    @cached_property
    def slugs(self) -> list[str]:
        return list(dict.fromkeys(slug for run in self.folders for slug in run.slugs))

    def holding(self, slug: str) -> RunFolder | None:
        """The first run that keeps scores of single queries of a collection."""
        return next((run for run in self.folders if run.keeps(slug)), None)

    def scores(self, slug: str, notes: list[str]) -> Values:
        """Per-query values, means over the seeds; empty where no run keeps them."""
        known = self._scores
        if slug not in known:
            known[slug] = _mean([found for run in self.folders if (found := scores_of(run, slug, notes))])
        return known[slug]

    @cached_property
    def _scores(self) -> dict[str, Values]:
        return {}


def _value(run: RunFolder, part: str, slug: str, measure: str) -> float | None:
    if part in ("retrieval", "rag"):
        place: Any = run.metrics[part].get(slug, {})
        name, _, line = measure.removesuffix(")").partition(" (")
        name = name if line else measure
        inner = name.split(".") if name.startswith((f"{JUDGED}.", f"{AGREEMENT}.")) else [name]
        keys = [line, *inner] if line else inner
    else:
        if part == "learnt":
            place = run.learnt
        elif part == "asked":
            place = run.asked.get(slug, {})
        elif part == "search":
            place = run.manifest.get("search", {}).get(slug, {})
        else:
            place = {"agreement": run.agreement, "ledger": run.ledger}.get(part) or run.metrics.get(part, {})
        keys = measure.split(".") if measure not in place else [measure]
    for key in keys:
        place = place.get(key) if isinstance(place, Mapping) else None
    return float(place) if isinstance(place, int | float) and not isinstance(place, bool) else None


def scores_of(run: RunFolder, slug: str, notes: list[str]) -> Values:
    """Per-query values of one run; empty where it keeps none."""
    if not run.keeps(slug):
        return {}
    try:
        return read_scores(run.path, slug)
    except DataError as error:
        notes.append(str(error))
        return {}


def _mean(seeds: Sequence[Values]) -> Values:
    if len(seeds) == 1:
        return seeds[0]
    gathered: dict[str, dict[str, list[float]]] = {}
    for values in seeds:
        for measure, by_query in values.items():
            into = gathered.setdefault(measure, {})
            for query, value in by_query.items():
                into.setdefault(query, []).append(value)
    return {m: {q: fmean(v) for q, v in by_query.items()} for m, by_query in gathered.items()}


def rows_of(runs: Sequence[RunFolder]) -> list[Row]:
    """Runs whose configs differ in `seed` alone as one row, in the order of the first of each. A run that evaluates the model
    of another one of `runs` on other collections, and searches as that one does, belongs to that one's. Equal runs of one seed
    stay apart."""
    groups: dict[tuple[str, int], list[Seed]] = {}
    seen: dict[tuple[str, Any], int] = {}
    every = _joined(runs)
    for joined, key in zip(every, _keys([joined[0] for joined in every]), strict=True):
        seed = joined[0].config.get("seed")
        again = seen[key, seed] = seen.get((key, seed), -1) + 1
        groups.setdefault((key, again), []).append(joined)
    return [Row(name, tuple(seeds)) for name, seeds in zip(_row_names(list(groups.values())), groups.values(), strict=True)]


def _keys(runs: Sequence[RunFolder]) -> list[str]:
    """The method of each run, with the seeds of its parts but for those that are the run's own in all runs of the method."""
    methods = [method_key(run) for run in runs]
    parts = [{key: value for key, value in run.config.items() if key.endswith(PART)} for run in runs]
    given = {
        (method, key)
        for method, run, seeds in zip(methods, runs, parts, strict=True)
        for key, value in seeds.items()
        if value != run.config.get("seed")
    }
    return [
        f"{method}{sorted((key, str(value)) for key, value in seeds.items() if (method, key) in given)}"
        for method, seeds in zip(methods, parts, strict=True)
    ]


def method_key(run: RunFolder, without: Sequence[str] = ()) -> str:
    """What tells the run's method from others: its config besides seeds, names and places, and `without` (names, or
    beginnings of names that end in a dot)."""
    if not run.config:
        return str(run.path)
    kept = {}
    for key, value in run.config.items():
        if key in BESIDE and not (key == "model" and run.trained is None):
            continue
        if key.startswith("logger.") or key.endswith(PART):
            continue
        if any(key == name or (name.endswith(".") and key.startswith(name)) for name in without):
            continue
        kept[key] = value
    return json.dumps(kept, sort_keys=True, default=str)


def _joined(runs: Sequence[RunFolder]) -> list[Seed]:
    seeds: dict[Any, list[RunFolder]] = {run.path.resolve(): [run] for run in runs if not run.trained}
    for run in runs:
        if run.trained:
            others = seeds.get(run.trained) if run.as_trained else None
            if others and not any(set(run.slugs) & set(other.slugs) for other in others):
                others.append(run)
            else:
                seeds[run.path.resolve()] = [run]
    order = {run.path.resolve(): at for at, run in enumerate(runs)}
    return [tuple(seeds[path]) for path in sorted(seeds, key=order.__getitem__)]


def _row_names(groups: Sequence[Sequence[Seed]]) -> list[str]:
    methods = [seeds[0][0].config.get("method") for seeds in groups]
    folders = _told_apart(groups)
    names = [str(m) if m and methods.count(m) == 1 else f for m, f in zip(methods, folders, strict=True)]
    whole = [seeds[0][0].name for seeds in groups]
    return [name if names.count(name) == 1 else f for name, f in zip(names, whole, strict=True)]


def _told_apart(groups: Sequence[Sequence[Seed]]) -> list[str]:
    """Names of run folders; of those that list overrides, as the jobs of a sweep do, what tells them apart."""
    words = [_overrides(seeds) for seeds in groups]
    common = set(_common(words))
    names = []
    for seeds, own in zip(groups, words, strict=True):
        kept = [w for w in own if w not in common and not (len(seeds) > 1 and w.startswith("seed="))]
        names.append(", ".join(map(_shown, kept)) or seeds[0][0].name)
    return names


def _overrides(seeds: Sequence[Seed]) -> list[str]:
    """Those that the name of the first run's folder lists; none where it is another name. In one that was cut the last one
    ends with the hash of all of them, and says nothing by itself."""
    name = seeds[0][0].path.name
    words = list(dict.fromkeys(OVERRIDE.split(name)))
    if is_cut(name):
        words = words[:-1]
    return words if all("=" in word for word in words) else []


def _common(words: Sequence[Sequence[str]]) -> list[str]:
    jobs = [own for own in words if own]
    return [word for word in jobs[0] if all(word in own for own in jobs)] if len(jobs) > 1 else []


def shared(rows: Sequence[Row]) -> list[str]:
    """Overrides of all jobs of sweeps among the rows, which their names leave out."""
    words = _common([_overrides(row.seeds) for row in rows])
    return [word.replace("\\", "") for word in words if not word.startswith("seed=")]


def stand_in(row: Row) -> str:
    """Whose labels the row has, where `scale=mini` puts another annotator or LLM in the place of the paper's."""
    annotator, source = (str(row.config.get(name) or "") for name in ("annotator._target_", "label_source._target_"))
    if row.config.get("scale") != "mini" or not annotator or source.endswith((".HumanLabels", ".ClickLabels")):
        return ""
    model = Path(str(row.config.get("llm.model") or "")).name
    return f"{annotator.rpartition('.')[2]}{' by ' * bool(model)}{model}"


def stand_ins(rows: Sequence[Row]) -> list[str]:
    """A sentence a stand-in, on the rows that are named as the method whose labels they lack."""
    named: dict[str, list[str]] = {}
    for row in rows:
        if row.config.get("method") and (who := stand_in(row)):
            named.setdefault(who, []).append(row.name)
    return [f"scale=mini: the LLM's labels of {', '.join(names)} are those of {who}." for who, names in named.items()]


def given_kept(rows: Sequence[Row]) -> list[str]:
    """A sentence on the rows whose model has the weights from before its training, where there are any."""
    kept = [(row.name, sum(seed[0].given_kept for seed in row.seeds), len(row.seeds)) for row in rows]
    names = [name if n == of else f"{name} ({n} of {of} seeds)" for name, n, of in kept if n]
    worse = "trained on nothing: dev was worse after training, so that the weights from before were kept"
    return [f"{', '.join(names)}: {worse} (training.keep_better)."] if names else []


def _shown(override: str) -> str:
    """`loss=joint` as joint; numbers, and what is on or off, keep their name."""
    value = override.partition("=")[2]
    return value if value[:1].isalpha() and value not in ("true", "false", "null", "on", "off") else override


def find_row(rows: Sequence[Row], name: str, option: str) -> Row:
    """The row of that name, or else the one that has a run of that name or path; UserError where there is none, or several."""
    asked = Path(name).resolve()

    def has(row: Row) -> bool:
        known = {row.name.replace(", ", ","), *(n for run in row.folders for n in (run.name, run.path.name))}
        return name in known or asked in {run.path.resolve() for run in row.folders}

    found = [row for row in rows if row.name == name] or [row for row in rows if has(row)]
    if len(found) > 1:
        raise UserError(f"{option}={name}: the name of several runs: {', '.join(r.name for r in found)}; give one of these")
    if not found:
        raise UserError(f"{option}={name}: no such run; allowed: {', '.join(row.name for row in rows)}")
    return found[0]
