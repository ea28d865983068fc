"""Questions on which two rows differ most: what both found, how it is labelled and what was answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uar.collections import Collection, open_collection
from uar.collections.languages import head
from uar.collections.reference import parse, slug
from uar.errors import UserError
from uar.evaluation.scored_references import resolved, scored_references
from uar.reporting.marks import Marks, sureness
from uar.reporting.rows import Row, scores_of
from uar.reporting.run_folders import RunFolder, unreadable
from uar.storage.label_files import NAME, read_label_columns
from uar.storage.lines import read_lines
from uar.storage.ordering import Hit, best_first

Labels = Mapping[str, Mapping[str, Mapping[str, tuple[int, str]]]]  # query -> passage -> row -> label, source


@dataclass(frozen=True)
class Options:
    """`pairs`: rows compared with the baseline, at most. `queries`: the best and as many worst of a pair and collection.
    `passages` of each list; `words` of a passage."""

    pairs: int = 4
    queries: int = 50
    passages: int = 5
    words: int = 40

    def __post_init__(self) -> None:
        for name, least in (("pairs", 0), ("queries", 1), ("passages", 1), ("words", 0)):
            if getattr(self, name) < least:
                raise UserError(f"explorer.{name}={getattr(self, name)}: a whole number from {least} on is needed")


@dataclass
class Explorer:
    """Gathers what a page shows, so that a passage that many lists name stands there once."""

    options: Options
    rows: Sequence[Row]
    notes: list[str]
    passages: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # slug -> id -> title, text
    _opened: dict[str, Collection | None] = field(default_factory=dict)

    def pairs(self, baseline: Row, chosen: Sequence[Row], by_row: Mapping[str, Marks] | None = None) -> dict[str, Any]:
        """`pairs`: a dict a (row, collection); `passages`: title and text by collection and id. `by_row`: the rows' tests
        against the baseline: those that differ most surely come first."""
        tested = by_row or {}
        chosen = sorted(chosen, key=lambda row: _chance(tested.get(row.name, {})))
        found = []
        for row in chosen[: self.options.pairs]:
            marks = tested.get(row.name, {})
            slugs = sorted(row.slugs, key=lambda slug: _chance(marks, slug))
            found += [{**made, "told": _told(marks, s)} for s in slugs if (made := self._pair(row, baseline, s))]
        if len(chosen) > self.options.pairs:
            left = len(chosen) - self.options.pairs
            self.notes.append(f"explorer: {self.options.pairs} pairs are shown, {left} are not (explorer.pairs)")
        return {"pairs": found, "passages": self.passages}

    def _pair(self, row: Row, baseline: Row, slug: str) -> dict[str, Any] | None:
        """Scores, lists and answers are all of one seed, where both have the same one."""
        both = _same_seed(baseline, row, slug)
        if both is None:
            return None
        theirs, ours = (scores_of(run, slug, self.notes) for run in both)
        differences = {
            measure: {q: value - theirs[measure][q] for q, value in by_query.items() if q in theirs[measure]}
            for measure, by_query in ours.items()
            if measure in theirs
        }
        chosen = most_different(differences, self.options.queries)
        if not chosen:
            return None
        collection = self._collection(slug, both)
        rankings = [_rankings(run, slug, set(chosen), self.notes) for run in both]
        answers = [_generations(run, slug, self.notes) for run in both]
        labels = self._labels(slug, both, set(chosen))
        queries = [self._query(q, slug, collection, rankings, answers, labels.get(q, {})) for q in chosen]
        for query in queries:
            q = query["id"]
            query["scores"] = {
                m: [round(theirs[m][q], 4), round(ours[m][q], 4)] for m, found in differences.items() if q in found
            }
        return {
            "baseline": baseline.name,
            "run": row.name,
            "seeds": [run.config.get("seed") for run in both],
            "slug": slug,
            "measures": list(differences),
            "queries": queries,
        }

    def _query(
        self,
        query_id: str,
        slug: str,
        collection: Collection | None,
        rankings: Sequence[Mapping[str, list[Hit]]],
        answers: Sequence[Mapping[str, dict[str, Any]]],
        llm: Mapping[str, Mapping[str, tuple[int, str]]],
    ) -> dict[str, Any]:
        kept = next((a[query_id] for a in answers if query_id in a), {})
        query = collection.queries.get(query_id) if collection else None
        grades = collection.qrels.get(query_id, {}) if collection else {}
        positives = collection.positives(query_id) if collection else []
        gold = positives[: self.options.passages]
        lists = [[d for d, _ in r.get(query_id, ())[: self.options.passages]] for r in rankings]
        for doc_id in {d for ids in (*lists, gold) for d in ids}:
            self._keep(slug, collection, doc_id)
        ranks = [{d: at for at, (d, _) in enumerate(r.get(query_id, ()), start=1)} for r in rankings]
        shown = dict.fromkeys(d for ids in (*lists, gold) for d in ids)
        return {
            "id": query_id,
            "text": query.text if query else kept.get("question", ""),
            "answers": list(query.answers) if query and query.answers else kept.get("gold", []),
            "lists": lists,
            "gold": [[d, *(of_run.get(d) for of_run in ranks)] for d in gold],
            "people": {d: [grades[d], int(d in positives)] for d in shown if d in grades},
            "llm": {d: llm[d] for d in shown if d in llm},
            "generations": [a.get(query_id, {}).get("answers", {}) for a in answers],
        }

    def _keep(self, slug: str, collection: Collection | None, doc_id: str) -> None:
        kept = self.passages.setdefault(slug, {})
        if collection is None or doc_id in kept or not self.options.words or collection.corpus.row(doc_id) < 0:
            return
        title, text = collection.corpus.parts(doc_id)
        text = " ".join(text.split())
        start = head(text, self.options.words)
        kept[doc_id] = [title, start + (" …" if len(start) < len(text) else "")]

    def _collection(self, name: str, runs: Sequence[RunFolder]) -> Collection | None:
        """The collection behind a slug, as the runs' configs name it; None, and a note, where it cannot be opened."""
        if name not in self._opened:
            reference = next((r for run in runs for r in references(run) if slug(r) == name), None)
            try:
                if reference is None:
                    raise UserError("no config names it")
                self._opened[name] = open_collection(reference)
            except UserError as error:
                self._opened[name] = None
                self.notes.append(f"explorer: {name} cannot be opened, so passages are shown by their ids ({error})")
        return self._opened[name]

    def _labels(self, name: str, runs: Sequence[RunFolder], query_ids: set[str]) -> Labels:
        """LLMs' labels of the questions, from the labels.parquet of all rows on the same collection."""
        places = {parse(r)[:2] for run in runs for r in references(run) if slug(r) == name}
        found: dict[str, dict[str, dict[str, tuple[int, str]]]] = {}
        for row in self.rows:
            paths = {run.path / NAME: None for run in row.folders if places & {parse(r)[:2] for r in _labelled(run)}}
            path = next((path for path in paths if path.is_file()), None)
            for query, doc, label, source in _label_rows(path, query_ids, self.notes) if path else ():
                found.setdefault(query, {}).setdefault(doc, {})[row.name] = label, source
        return found


def _chance(marks: Marks, slug: str | None = None) -> float:
    """The least p of a row's tests on a collection, or on any; 2, beyond any p, where nothing differs or is tested."""
    values = [m["p t-test"] for (at, _), m in marks.items() if slug in (None, at) and m["difference"]]
    return min((p for p in values if p is not None), default=2.0)


def _told(marks: Marks, slug: str) -> dict[str, str]:
    """By measure, how the means of the seeds differ and how sure that is."""
    return {measure: sureness(mark) for (at, measure), mark in marks.items() if at == slug}


def _same_seed(baseline: Row, row: Row, slug: str) -> tuple[RunFolder, RunFolder] | None:
    """Of each the run of the first seed in which both keep scores of single questions, else the first that does."""
    by_seed: list[dict[Any, RunFolder]] = []
    for one in (baseline, row):
        found: dict[Any, RunFolder] = {}
        for run in one.folders:
            if run.keeps(slug):
                found.setdefault(run.config.get("seed"), run)
        by_seed.append(found)
    theirs, ours = by_seed
    if not theirs or not ours:
        return None
    first = next(iter(theirs.values())), next(iter(ours.values()))
    return next(((theirs[seed], ours[seed]) for seed in theirs if seed in ours), first)


def most_different(differences: Mapping[str, Mapping[str, float]], limit: int) -> list[str]:
    """Ids of the questions with the largest gains and losses, at most `limit` each way; the measures take turns."""
    chosen: dict[str, None] = {}
    for sign in (1, -1):
        orders = [
            sorted((q for q, d in by_query.items() if sign * d > 0), key=lambda q, d=by_query: (-abs(d[q]), q))  # type: ignore[misc]
            for by_query in differences.values()
        ]
        turns = (order[at] for at in range(max(map(len, orders), default=0)) for order in orders if at < len(order))
        side: dict[str, None] = {}
        for query in turns:
            if len(side) == limit:
                break
            side[query] = None
        chosen.update(side)
    return list(chosen)


def references(run: RunFolder) -> list[str]:
    """References of the collections that a run was scored on."""
    config = run.config
    return scored_references(config.get("collections") or config.get("dataset.test"), config.get("dataset.path"))


def _labelled(run: RunFolder) -> list[str]:
    train = run.config.get("dataset.train")
    return resolved([train], run.config.get("dataset.path")) if isinstance(train, str) else []


def _rankings(run: RunFolder, slug: str, query_ids: set[str], notes: list[str]) -> dict[str, list[Hit]]:
    """Of these questions alone, best first: a whole run file of many questions need not be held."""
    path = run.path / "runs" / f"{slug}.trec"
    hits: dict[str, list[Hit]] = {}
    try:
        for _, line in read_lines(path):
            cells = line.split()
            if cells[0] in query_ids:
                hits.setdefault(cells[0], []).append((cells[2], float(cells[4])))
    except (UserError, ValueError, IndexError) as error:
        notes.append(f"explorer: {run.name}: runs/{slug}.trec: {type(error).__name__}: no lists of it")
        return {}
    return {query: best_first(found) for query, found in hits.items()}


def _generations(run: RunFolder, slug: str, notes: list[str]) -> dict[str, dict[str, Any]]:
    """question, gold and answers by line, by query id."""
    path: Path = run.path / "generations" / f"{slug}.parquet"
    found: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return found
    try:
        for row in pq.read_table(path).to_pylist():
            kept = found.setdefault(row["query_id"], {"question": row["question"], "gold": row["gold"], "answers": {}})
            kept["answers"][row.get("line") or "retrieved"] = row["answer"]
    except (pa.ArrowException, OSError, KeyError) as error:
        notes.append(unreadable(f"explorer: {run.name}", f"generations/{slug}.parquet", error))
    return found


def _label_rows(path: Path, query_ids: set[str], notes: list[str]) -> list[tuple[str, str, int, str]]:
    """query, passage, label and source of those in which an LLM has a part: `llm`, `llm:NAME`, `human+llm`, ..."""
    try:
        names = ("query_id", "doc_id", "label", "source")
        rows = zip(*read_label_columns(path, names, query_ids).to_pydict().values(), strict=True)
    except UserError as error:
        notes.append(unreadable("explorer", str(path), error))
        return []
    kept = [(q, d, label, source or "llm") for q, d, label, source in rows]  # older annotate runs did not write who said so
    return [(q, d, int(label), source) for q, d, label, source in kept if "llm" in source and label is not None]
