"""Hybrid test (arXiv 2504.05220): the pool of several runs is judged by an annotator, joined with people's judgements, and the
runs are measured on both."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
import pyarrow as pa
from omegaconf import DictConfig

from uar.annotation.annotate_run import annotate
from uar.annotation.assignment import asked_first
from uar.annotation.means import against_of
from uar.collections import Collection, open_training_split
from uar.collections.collection_runs import read_known
from uar.collections.presets import expand
from uar.errors import UserError
from uar.evaluation.estimates import Estimating
from uar.evaluation.measures import means, parsed, per_query, refuse_deeper
from uar.evaluation.run_estimates import estimate_runs
from uar.llm.engines.work import part_of
from uar.storage.files import file_hash, read_json, write_json, write_table
from uar.storage.labelled_pairs import read_labels
from uar.storage.qrels import write_qrels
from uar.storage.runs import Run, cut_at, run_files

log = logging.getLogger(__name__)
Labels = Mapping[str, Mapping[str, int]]  # 0 or 1 by query and passage


@dataclass(frozen=True, slots=True)
class Joined:
    """A judgement of the hybrid qrels. `human`: people's grade, `llm`: the annotator's label, None where there is none.
    `origin`: whose judgement it is: human, llm, or human+llm where both say the same."""

    query_id: str
    doc_id: str
    grade: int
    human: int | None
    llm: int | None
    origin: str


def hybrid(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Annotate the pool of `runs`, write `hybrid.qrels`, `hybrid.parquet`, `scores.parquet`, `metrics.json` and, where people
    judged enough, `estimates.json` beside what the annotate command writes, and return the metrics; with `dry_run` return the
    estimate of costs."""
    references = expand(cfg.collection)
    if len(references) != 1:
        raise UserError(f"collection={cfg.collection} stands for {len(references)} collections; give one")
    cfg.dataset.train = references[0]
    if cfg.gold_answers:
        judge_beside_gold(cfg.annotator)
    split = cfg.dataset
    collection = open_training_split(
        split.train, split.path, split.positive_grade, split.answers, split.language, split.judgements, split.assisted
    )
    files = run_files(cfg.runs, "runs")
    runs = {name: read_known(path, collection, list(collection.queries)) for name, path in files.items()}
    parsed(cfg.measures)  # refuses unknown measures before anything is asked
    estimating: Estimating | None = hydra.utils.instantiate(cfg.estimate)
    for name, run in runs.items():
        cut = cut_at(run)
        if cut is not None:
            refuse_deeper(collection, cfg.measures, cut, f"runs.{name}", "give a deeper run")
    spent = annotate(cfg, folder)
    if cfg.dry_run:
        return spent
    query_ids = part_of(asked_first(cfg, collection, against_of(cfg)), cfg.shard)
    pools = hydra.utils.instantiate(cfg.candidates, _convert_="all").pools(collection, query_ids)
    rows = list(join(collection, _labels(folder, pools)))
    write_joined(folder, rows)
    metrics = _measure(folder, collection, rows, runs, cfg.measures)
    judged = {q: judged for q, judged in read_labels(folder).items() if q in pools}
    if estimating:
        estimate_runs(folder, collection, judged, runs, cfg.measures, estimating)
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"runs": {name: file_hash(path) for name, path in files.items()}})
    return metrics


def judge_beside_gold(annotator: DictConfig) -> None:
    """Where the annotator, or the member of an ensemble, has the option."""
    for node in (annotator, annotator.get("member")):
        if node is not None and "gold_answer" in node:
            node.gold_answer = True


def _labels(folder: Path, pools: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """What the annotator says of the pools: an imported file may hold less, and more."""
    found = read_labels(folder)
    labels = {q: {d: int(found[q][d].label or 0) for d in pool if d in found[q]} for q, pool in pools.items() if q in found}
    labels = {q: judged for q, judged in labels.items() if judged}
    pooled, judged = sum(map(len, pools.values())), sum(map(len, labels.values()))
    log.info("%d of %d pooled passages judged, in %d of %d queries", judged, pooled, len(labels), len(pools))
    if not labels:
        raise UserError("no passage of the pools has a label; widen depth, or give labels of this collection")
    return labels


def join(collection: Collection, labels: Labels) -> Iterable[Joined]:
    """People's judgements of the queries that `labels` has, and its labels of what nobody judged, whose positives get the
    grade from which a passage is positive. Where people judged a passage, that stands."""
    for query_id, llm in labels.items():
        human = collection.qrels.get(query_id, {})
        for doc_id in dict.fromkeys([*human, *llm]):
            people, label = human.get(doc_id), llm.get(doc_id)
            grade = collection.positive_grade * int(label or 0) if people is None else people
            positive = grade >= collection.positive_grade
            origin = "llm" if people is None else "human" if label is None or bool(label) != positive else "human+llm"
            yield Joined(query_id, doc_id, grade, people, label, origin)


def write_joined(folder: Path, rows: Sequence[Joined]) -> None:
    """`hybrid.qrels` (TREC) and `hybrid.parquet`."""
    write_qrels(folder / "hybrid.qrels", ((r.query_id, r.doc_id, r.grade) for r in rows))
    text, number = pa.string(), pa.int32()
    kinds = {"query_id": text, "doc_id": text, "grade": number, "human": number, "llm": number, "origin": text}
    table = pa.table({name: pa.array([getattr(r, name) for r in rows], kind) for name, kind in kinds.items()})
    write_table(folder / "hybrid.parquet", table)


def _measure(
    folder: Path, collection: Collection, rows: Sequence[Joined], runs: Mapping[str, Run], measures: Sequence[str]
) -> dict[str, Any]:
    """The runs on the same queries with either judgements: those with a positive of people's, or where there are none at all,
    with one of the annotator's."""
    qrels: dict[str, dict[str, int]] = {}
    for row in rows:
        qrels.setdefault(row.query_id, {})[row.doc_id] = row.grade
    both = {"human": collection, "hybrid": replace(collection, qrels=qrels)}
    query_ids = [q for q in qrels if collection.positives(q)]
    if not query_ids:
        log.info("%s: no judged query has a positive of people's: the runs are measured on hybrid alone", collection.reference)
        del both["human"]
        query_ids = [q for q in qrels if both["hybrid"].positives(q)]
    if not query_ids:
        raise UserError(
            f"{collection.reference}: neither people nor the annotator found a positive; there is nothing to score"
        )
    scores = [
        (judges, name, *score)
        for judges, judged in both.items()
        for name, run in runs.items()
        for score in per_query(judged, run, measures, query_ids)
    ]
    names = ("qrels", "run", "query_id", "measure", "value")
    write_table(folder / "scores.parquet", pa.table(dict(zip(names, map(list, zip(*scores, strict=True)), strict=True))))
    metrics = {
        judges: {name: means(row[2:] for row in scores if row[:2] == (judges, name)) for name in runs} for judges in both
    }
    write_json(folder / "metrics.json", metrics)
    for judges, judged in both.items():
        positives = sum(len(judged.positives(q)) for q in query_ids)
        log.info("%s: %d queries, %.2f positives each", judges, len(query_ids), positives / len(query_ids))
        for name, values in metrics[judges].items():
            log.info("%s, %s: %s", judges, name, ", ".join(f"{measure} {value:.4f}" for measure, value in values.items()))
    return metrics
