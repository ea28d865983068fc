"""The annotate command: collection, or questions written for its corpus -> pools -> records in the store -> labels, costs and
quality in the run folder."""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.annotation.bar import shown
from uar.annotation.chains import joined
from uar.annotation.engines import identity_of
from uar.annotation.estimate import SAMPLE, TokenCounter, estimate, render
from uar.annotation.ledger import Prices, keep_rate, ledger, read_rates
from uar.annotation.neutral import attempts
from uar.annotation.outputs import write_failures, write_labels, write_prompts
from uar.annotation.quality.report import quality
from uar.annotation.stages import Annotator, Ensemble
from uar.annotation.tracking import track
from uar.annotation.work import Work, part_of
from uar.candidates import write_pools
from uar.collections import Collection, open_training_split
from uar.errors import UserError
from uar.files import write_json
from uar.manifest import save_config, save_manifest
from uar.questions.command import open_writing, write_questions
from uar.tracking.artefacts import Annotations
from uar.tracking.job import tracked

log = logging.getLogger(__name__)


def annotate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Annotate `dataset.train` (its first `limit` queries, of them `shard`) and return the ledger; with `dry_run` ask nothing
    and return the estimate."""
    annotator: Annotator = hydra.utils.instantiate(cfg.annotator, _convert_="all")
    prices: Prices = hydra.utils.instantiate(cfg.price)
    llms = llm_configs(cfg)
    _fitting_models(annotator, llms)
    save_config(folder, cfg)
    writing = open_writing(cfg, llms[0])
    if writing and writing.missing and cfg.dry_run:
        log.info("The questions are not written yet: this is what writing them takes; ask again once they are")
        return _dry_run(writing.work, prices, folder)
    if writing:
        write_questions(writing, cfg.shard, prices, folder)
        collection, questions = writing.collection()
    else:
        collection = open_training_split(cfg.dataset.train, cfg.dataset.path, cfg.dataset.positive_grade, cfg.dataset.answers)
    pools = _pools(cfg, collection, annotator, folder)
    work = Work(collection, annotator, pools, llms, Path(cfg.store), cfg.max_failure_rate)
    if cfg.dry_run:
        return _dry_run(work, prices, folder)
    stopped: UserError | None = None
    try:
        with shown(work, prices) as bar:
            hydra.utils.instantiate(cfg.engine).run(work, bar)
    except UserError as error:  # what was judged so far is written before the error is told
        stopped = error
    work.judged = {q: work.judged[q] for q in pools if q in work.judged}
    judged, calibrated = annotator.finish(collection, work.judged, cfg.seed)
    pairs = sum(map(len, judged.values()))
    works = [writing.work, work] if writing else [work]
    progress, models = joined(one.progress for one in works), work.models or works[0].models
    spent = ledger(progress, len(judged), pairs, sum(one.seconds for one in works), models, prices)
    spent["material"] = _material(collection, pools)
    if writing:
        spent["questions"] = questions
    write_labels(folder, judged)
    write_failures(folder, progress.failures)
    write_json(folder / "ledger.json", spent)
    found = quality(folder, collection, annotator, judged, calibrated, cfg.against)
    save_manifest(folder, collection=collection.hash, model=spent["model"], store=str(cfg.store))
    if annotator.needs_llm and len(llms) == 1 and not writing:
        keep_rate(work.store, work.models[0], spent)
    with tracked(cfg, folder) as job:
        seen = Annotations(OmegaConf.to_container(cfg.annotator, resolve=True), work.models, judged)  # type: ignore[arg-type]
        track(job, folder, spent, found, collection, seen)
    if stopped:
        raise stopped
    if not judged:
        raise UserError(f"no query got a label: {len(work.progress.failures)} calls failed, see {folder / 'failures.jsonl'}")
    log.info(
        "%d queries annotated: %d calls made, %d answered by the store, %.0f s%s; labels in %s",
        len(judged), spent["calls"], spent["calls_answered_by_store"], spent["seconds"], _cost(spent), folder,
    )  # fmt: skip
    return spent


def llm_configs(cfg: DictConfig) -> list[Mapping[str, Any]]:
    """Plain configs of the run's model and of the further ones of an ensemble."""
    return [OmegaConf.to_container(llm, resolve=True) for llm in (cfg.llm, *cfg.llms.values())]  # type: ignore[misc]


def _fitting_models(annotator: Annotator, llms: Sequence[Any]) -> None:
    wanted = annotator.models if isinstance(annotator, Ensemble) else 1
    if len(llms) != wanted:
        raise UserError(f"{len(llms)} models are given and {type(annotator).__name__} asks {wanted}; +llm@llms.NAME adds one")
    names = [identity_of(llm) for llm in llms] if wanted > 1 else []
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"llm and llms name {twice} more than once, which would say the same; raise annotator.samples instead")


def _pools(cfg: DictConfig, collection: Collection, annotator: Annotator, folder: Path) -> dict[str, list[str]]:
    """Passage ids of each query that can be annotated."""
    query_ids = part_of(collection.head(cfg.limit), cfg.shard)
    found = annotator.own_pools(collection)
    if found is None:
        found = hydra.utils.instantiate(cfg.candidates).pools(collection, query_ids)
    pools = {q: found[q] for q in query_ids if q in found}
    write_pools(folder / "candidates" / f"{collection.slug}.jsonl", pools)
    wants_gold = annotator.needs_gold_answers
    pools = {q: pool for q, pool in pools.items() if pool and (collection.queries[q].answers or not wants_gold)}
    if len(pools) < len(query_ids):
        missing = len(query_ids) - len(pools)
        log.info("%d of %d queries have no candidates or no target text and are left out", missing, len(query_ids))
    if not pools:
        raise UserError(
            f"{collection.reference}: no query with candidates to annotate; widen candidates or choose another split"
        )
    return pools


def _dry_run(work: Work, prices: Prices, folder: Path) -> dict[str, Any]:
    if not work.annotator.needs_llm:
        raise UserError("dry_run=true: this annotator asks nothing; there is nothing to estimate")
    sample = render(work.annotator, islice(work.questions(), SAMPLE))
    model = str(work.llms[0]["model"])
    rate = read_rates(work.store).get(work.models[0])
    told = estimate(sample, len(work.pools), TokenCounter(model), prices, rate)
    write_json(folder / "estimate.json", told)
    write_prompts(folder / "prompts.jsonl", ((q.id, stage, request) for q, asked in sample for stage, request, _ in asked))
    time = f"{told['seconds']:.0f} s" if told["seconds"] is not None else "time unknown until this model ran once (limit=20)"
    log.info(
        "Nothing was asked. %d queries: %d calls, %d prompt tokens (%d of them cached), %d to write, %s%s; prompts in %s",
        told["queries"], told["calls"], told["tokens_in"], told["tokens_cached"], told["tokens_out"], time, _cost(told),
        folder / "prompts.jsonl",
    )  # fmt: skip
    return told


def _cost(told: Mapping[str, Any]) -> str:
    parts = [f"{told[name]:.4g} {told['currency']}{who}" for name, who in (("cost", ""), ("human_cost", " for people"))
             if told[name] is not None]  # fmt: skip
    return f" ({', '.join(parts)})" if parts else ""


def _material(collection: Collection, pools: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """How many of the passages shown hold what could break the protocol, by kind. Instructions are shown as they are."""
    shown_ids = list(dict.fromkeys(d for pool in pools.values() for d in pool))
    kinds = ("control_tokens", "role_markers", "identifiers", "answer_formats", "instructions")
    counts = dict.fromkeys(kinds, 0)
    defused = 0
    for row in collection.corpus.rows(shown_ids):
        found = list(attempts(collection.corpus.text(row)))
        defused += any(kind != "instructions" for kind in found)
        for kind in found:
            counts[kind] += 1
    told = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in counts.items() if n)
    if told:
        log.info(
            "%d of %d passages hold what could pass for the protocol and are defused; seen: %s", defused, len(shown_ids), told
        )
    return {"passages": len(shown_ids), "passages_defused": defused, "by_kind": counts}
