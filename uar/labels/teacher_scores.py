"""Scores of pools by a teacher: a model, a run file, or an annotator."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from uar.collections import Collection
from uar.errors import MissingModel, UserError
from uar.labels.judged_columns import utility_of
from uar.labels.source import LabelContext
from uar.retrievers.ranker import Pools, Ranker
from uar.retrievers.run_file import RunFile
from uar.retrievers.session import Session
from uar.storage.files import cache_dir, digest, write_array

log = logging.getLogger(__name__)
ANNOTATOR = "annotator"
FILES = (".trec", ".run", ".txt", ".jsonl")  # what the name of a run file ends with
BLOCK = 256  # questions that are scored, and kept, at a time
Scores = Mapping[str, Mapping[str, float]]  # by query id and passage id


def teacher_scores(
    teacher: str,
    revision: str | None,
    precision: str,
    context: LabelContext,
    pools: Pools,
    option: str = "label_source.scores",
) -> Scores:
    """Of the passages of `pools` that the teacher has scores of; see `TeacherLabels`. Those of a model are multiplied by the
    scale that it was trained with, and kept in the cache by what they depend on, so that a run that was killed goes on.
    `option`: what errors call the teacher."""
    if teacher == ANNOTATOR:
        return _of_annotator(context, pools)
    if Path(teacher).suffix in FILES:
        if not Path(teacher).is_file():
            raise UserError(f"{option}={teacher}: no such run file; give a TREC run, a model, or annotator")
        run = RunFile(teacher).score(context.collection, pools)
        return {q: dict(hits) for q, hits in run.items()}
    return _of_model(teacher, revision, precision, context.collection, pools, option)


def _of_annotator(context: LabelContext, pools: Pools) -> Scores:
    judged = context.judgements()
    graded = len({j.grade for q in pools for j in judged.get(q, ())}) > 2
    found: dict[str, dict[str, float]] = {}
    for query_id, pool in pools.items():
        utilities = {j.doc_id: utility_of(j, graded) for j in judged.get(query_id, ())}
        found[query_id] = {d: value for d in pool if (value := utilities.get(d)) is not None}
    return found


def _of_model(teacher: str, revision: str | None, precision: str, collection: Collection, pools: Pools, option: str) -> Scores:
    from uar.retrievers.model_folder import open_model
    from uar.retrievers.trained_scale import trained_scale
    from uar.retrievers.vector_index import ExactSearch

    try:
        model = open_model(teacher, revision)
    except MissingModel as error:
        raise UserError(f"{option}={teacher}: {error}") from error
    key = digest(model.key(collection), collection.hash, precision)
    scale = trained_scale(teacher, revision, model)
    found: dict[str, Mapping[str, float]] = {}
    query_ids, kept = list(pools), 0
    with Session(lambda: ExactSearch(precision=precision)) as session:
        opened = model.opened(session)
        for start in range(0, len(pools), BLOCK):
            of_block = {q: pools[q] for q in query_ids[start : start + BLOCK]}
            path = cache_dir() / "teacher" / f"{digest(key, [(q, list(pool)) for q, pool in of_block.items()])}.npy"
            kept += path.is_file()
            found |= _kept(path, opened, collection, of_block)
    parts = -(-len(pools) // BLOCK)
    log.info("%s scored the pools of %d questions; the cache had %d of %d parts", model.name, len(pools), kept, parts)
    return {q: {d: scale * score for d, score in scores.items()} for q, scores in found.items()}


def _kept(path: Path, ranker: Ranker, collection: Collection, pools: Pools) -> dict[str, Mapping[str, float]]:
    """Scores of all passages of the pools, from the file or made now."""
    sizes = [len(pool) for pool in pools.values()]
    if not path.is_file():
        run = {q: dict(hits) for q, hits in ranker.score(collection, pools).items()}
        scores = [run[q][d] for q, pool in pools.items() for d in pool]
        write_array(path, np.array(scores, dtype=np.float32))
    parts = np.split(np.load(path), np.cumsum(sizes)[:-1])
    return {q: dict(zip(pool, own.tolist(), strict=True)) for (q, pool), own in zip(pools.items(), parts, strict=True)}
