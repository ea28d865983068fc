"""What is reviewed: a collection, the pools of its questions and what an LLM said of them, from a run folder, an annotation of
the store, or the collection alone."""

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from uar.acquisition import Acquisition, AcquisitionContext
from uar.annotation.judgement import Judged
from uar.annotation.quality.from_files import judgements_of
from uar.annotation.run_settings import run_config, run_settings
from uar.annotation.scale import Scale, load_scale
from uar.collections import Collection, open_collection, open_training_split
from uar.collections.checked_files import candidates_of
from uar.collections.languages import AUTO
from uar.collections.people_judgements import texts_hash
from uar.collections.reference import resolve, slug
from uar.errors import UserError
from uar.evaluation.scored_references import scored_references
from uar.reviewing.label_database import Item
from uar.storage.files import read_json
from uar.storage.label_files import NAME
from uar.storage.labelled_pairs import read_pairs
from uar.storage.manifest import read_manifest
from uar.storage.ordering import rank_of
from uar.storage.runs import read_run
from uar.training.context import label_context

log = logging.getLogger(__name__)
Pools = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class ReviewSource:
    """`query_ids`: those to choose from. `judged`: an LLM's judgements, a UserError where there are none; `suggests`: whether
    there are any. `grades`: whether the LLM's grades are of the scale that people use."""

    collection: Collection
    query_ids: Sequence[str]
    pools: Pools
    judged: Callable[[], Judged]
    suggests: bool
    grades: bool

    def items(
        self, acquire: Acquisition, seed: int, limit: int | None, shared: float, known: Set[str] = frozenset()
    ) -> list[Item]:
        """The first `limit` questions in the order of `acquire`, all where it is None; those that have no passages are left
        out, which is said. `shared`: the share of them that everyone judges. `known`: questions of the queue already."""
        wanted = len(self.query_ids) if limit is None else limit
        context = AcquisitionContext(
            self.query_ids, seed, judgements=self.judged, pools=self.pools, collection=self.collection, wanted=wanted
        )
        chosen = [q for q in acquire.order(context)[:wanted] if q not in known]
        return self.of(chosen, seed, shared)

    def of(self, query_ids: Sequence[str], seed: int, shared: float) -> list[Item]:
        """These questions, passages in an order that the seed draws, so that a place tells nothing."""
        pools, judged = self.pools(query_ids), self.judged() if self.suggests else {}
        corpus = self.collection.corpus
        items = []
        for query_id in query_ids:
            doc_ids = sorted(dict.fromkeys(pools.get(query_id, ())), key=lambda d: rank_of(seed, "place", query_id, d))
            if not doc_ids:
                continue
            question = self.collection.queries[query_id].text
            texts = zip(doc_ids, corpus.texts(corpus.rows(doc_ids)), strict=True)
            suggestions = {j.doc_id: (j.label, j.grade if self.grades else None) for j in judged.get(query_id, ())}
            everyone = rank_of(seed, "shared", query_id) < _threshold(shared)
            items.append(Item(query_id, doc_ids, {d: texts_hash(question, t) for d, t in texts}, suggestions, everyone))
        if len(items) < len(query_ids):
            log.info(
                "%d of %d questions have no passages to judge and are left out", len(query_ids) - len(items), len(query_ids)
            )
        return items


def _threshold(share: float) -> bytes:
    """What the ranks of that share of all names lie below."""
    if not 0 <= share <= 1:
        raise UserError(f"shared={share}: a share from 0 to 1 is needed, such as 0.1")
    return b"\xff" * 17 if share == 1 else int(share * (1 << 64)).to_bytes(8, "big")


def review_source(cfg: DictConfig, folder: Path, scale: Scale) -> ReviewSource:
    """Of a composed review config; pools that are made are kept in `folder`."""
    if cfg.run is not None:
        if cfg.annotation is not None:
            raise UserError("run= and annotation= are both given; a run folder has its own pools: leave annotation=null")
        if (Path(cfg.run) / "runs").is_dir():
            return _of_rankings(Path(cfg.run), cfg.collection, cfg.candidates.depth)
        return _of_run(Path(cfg.run), scale)
    split = cfg.dataset
    collection = open_training_split(
        split.train, split.path, split.positive_grade, split.answers, split.language, split.judgements, split.assisted
    )
    context = label_context(cfg, collection, hydra.utils.instantiate(cfg.candidates), folder, [])
    if cfg.annotation is None:
        return ReviewSource(collection, list(collection.queries), context.pools, _none_judged, False, False)
    judged = context.judgements()
    grades = _same_scale(cfg.annotator.get("scale"), scale)
    return _of_judged(collection, judged, {q: [j.doc_id for j in found] for q, found in judged.items()}, grades)


def _of_run(folder: Path, scale: Scale) -> ReviewSource:
    """Of an annotate run: the pools that it showed, and its labels."""
    config = run_config(folder)
    collection = _collection_of(folder, config["dataset"])
    files = sorted((folder / "candidates").glob("*.jsonl"))
    if len(files) != 1 or not (folder / NAME).is_file() or not (folder / "ledger.json").is_file():
        raise UserError(f"run={folder}: no annotate run that has ended, with its candidates and {NAME}; give another run")
    _same_texts(folder, collection, read_manifest(folder).get("wording"), "labelled; annotate again")
    pools, _ = candidates_of(files[0], collection)
    judged = judgements_of(read_pairs(folder), 1)
    return _of_judged(collection, judged, pools, _same_scale(config["annotator"].get("scale"), scale))


def _of_rankings(folder: Path, name: str | None, depth: int) -> ReviewSource:
    """Of a train or evaluate run: the best passages of what it ranked, of the collection with that slug."""
    config = run_settings(folder)
    dataset = config.get("dataset") or {}
    references = {slug(r): r for r in scored_references(config.get("collections") or dataset.get("test"), dataset.get("path"))}
    ranked = [path.stem for path in sorted((folder / "runs").glob("*.trec")) if path.stem in references]
    wanted = ranked[0] if name is None and len(ranked) == 1 else name
    if wanted not in ranked:
        raise UserError(f"run={folder}: collection={name}: give one of those that it ranked: {', '.join(ranked) or 'none'}")
    collection = open_collection(references[wanted], dataset.get("language", AUTO))
    manifest = read_manifest(folder)
    wording = manifest.get("wordings", {}).get(wanted)
    _same_texts(folder, collection, wording, "ranked; evaluate again")
    if wording is None and manifest.get("collections", {}).get(wanted) != collection.hash:
        log.warning("run=%s: %s has changed since, its judgements or texts; evaluate again to be sure", folder, wanted)
    run = read_run(folder / "runs" / f"{wanted}.trec")
    pools = {q: [d for d, _ in run[q][:depth]] for q in collection.queries if q in run}
    lost = sum(collection.corpus.row(d) < 0 for found in pools.values() for d in found)
    if lost or not pools:
        raise UserError(f"run={folder}: it ranked another {wanted} than {collection.reference} is today; evaluate again")
    return ReviewSource(collection, list(pools), lambda some: {q: pools.get(q, ()) for q in some}, _none_judged, False, False)


def _same_texts(folder: Path, collection: Collection, wording: str | None, done: str) -> None:
    """UserError where the run was of another `wording`, None where it does not say; `done`: what it did to the texts."""
    if wording not in (None, collection.wording):
        raise UserError(
            f"run={folder}: questions or passages of {collection.reference} have other texts today than those that it {done}"
        )


def _of_judged(collection: Collection, judged: Judged, pools: Mapping[str, Sequence[str]], grades: bool) -> ReviewSource:
    query_ids = [q for q in collection.queries if q in judged]
    if not query_ids:
        raise UserError(f"{collection.reference}: none of its questions has labels by the LLM; give another run")
    return ReviewSource(
        collection, query_ids, lambda wanted: {q: pools.get(q, ()) for q in wanted}, lambda: judged, True, grades
    )


def _collection_of(folder: Path, dataset: dict[str, Any]) -> Collection:
    """That of an annotate run: its split, or the questions that it had written."""
    ledger = folder / "ledger.json"
    written = read_json(ledger).get("questions") if ledger.is_file() else None
    if written:
        return open_collection(f"local:{written['folder']}:train")
    language = dataset.get("language", "auto")
    reference = resolve(dataset["train"], dataset["path"])
    return open_training_split(reference, None, dataset["positive_grade"], dataset.get("answers"), language)


def _same_scale(name: str | None, scale: Scale) -> bool:
    return name is not None and load_scale(name) == scale


def _none_judged() -> Judged:
    raise UserError("there is no LLM's judgement to tell doubt from; give run= or annotation=, or acquire=random")
