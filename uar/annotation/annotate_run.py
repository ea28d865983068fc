"""The annotate command: collection, or questions written for its corpus -> pools -> records in the store -> labels, costs and
quality in the run folder."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.acquisition import Acquisition, AcquisitionContext
from uar.annotation.annotation import Annotation, Asked
from uar.annotation.annotation_tracking import Labelled, track
from uar.annotation.annotators import Annotator, Judged
from uar.annotation.gate import Gate, open_gate
from uar.annotation.guidelines import compare_guidelines, compare_with_files, keep_guidelines
from uar.annotation.outputs import DOUBTFUL, write_doubtful, write_labels, write_prompts, write_rationales
from uar.annotation.quality.from_files import judgements_of
from uar.annotation.quality.quality_report import Other, quality
from uar.annotation.question_source import QuestionSource, Setting, Writing
from uar.annotation.selection import Annotations
from uar.collections import Collection, open_training_split
from uar.errors import UserError
from uar.launch.command_line import command_line
from uar.launch.small_table import log_table
from uar.llm.chains import Chains
from uar.llm.costs.discount import discounted
from uar.llm.costs.estimate import SAMPLE, TokenCounter, estimate, good_replies, render
from uar.llm.costs.gpus import with_gpus
from uar.llm.costs.ledger import Prices, keep_rate, ledger, rate_name, read_rates
from uar.llm.costs.spending import Spending
from uar.llm.costs.trial import tried_rate
from uar.llm.engines.work import Work, outcomes_to_retry, part_of
from uar.llm.failing import write_failures
from uar.llm.models import LLM, identity_of, model_class
from uar.llm.pictured import check_shown
from uar.llm.pooled import PooledQuestions
from uar.llm.progress import Progress, joined
from uar.llm.progress_bar import progress_bar
from uar.llm.prompts.escaping import attempts
from uar.llm.record import Outcome
from uar.llm.store.store import Store
from uar.pools import write_pools
from uar.storage.files import write_json, write_jsonl
from uar.storage.label_files import read_labels
from uar.storage.manifest import save_config, save_manifest
from uar.tracking.job import tracked

log = logging.getLogger(__name__)
WRITE = "annotate without a gate (limit=1), have some of the questions judged, then annotate that folder with the gate"


def annotate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Annotate `dataset.train` (its first `limit` queries, of them `shard`) and return the ledger; with `dry_run` ask nothing
    and return the estimate."""
    annotator: Annotator = hydra.utils.instantiate(cfg.annotator, _convert_="all")
    llms = llm_configs(cfg)
    asked_models = llms if annotator.needs_llm else []
    prices = hydra.utils.instantiate(cfg.price, _convert_="all").for_models(list(cfg.llms))
    prices = discounted(prices, llms)
    prices = with_gpus(prices, asked_models, OmegaConf.to_container(cfg.engine, resolve=True))  # type: ignore[arg-type]
    _fitting_models(annotator, llms)
    gate: Gate = hydra.utils.instantiate(cfg.gate)
    if cfg.doubtful is not None and not 0 < cfg.doubtful <= 1:
        raise UserError(
            f"doubtful={cfg.doubtful}: a share of the questions above 0 and up to 1 is needed, or null for no list"
        )
    retry = outcomes_to_retry(cfg.retry_failures)
    other = read_labels(Path(cfg.against)) if cfg.against else None
    save_config(folder, cfg)
    writing = open_writing(cfg, llms[0])
    alone = len(llms) == 1 and "actors" not in cfg.engine
    if writing and writing.missing and cfg.dry_run:
        log.info("The questions are not written yet: this is what writing them takes; ask again once they are")
        return _dry_run(writing.work, len(writing.work.questions), prices, folder, alone)
    if cfg.dry_run and not annotator.needs_llm:
        raise UserError("dry_run=true: this annotator asks nothing; there is nothing to estimate")
    spending = None if prices.limit is None else Spending(prices)
    if writing and writing.missing and gate.questions:
        raise UserError(f"gate.questions={gate.questions}: the questions are not written yet, so nobody judged them; {WRITE}")
    if writing and cfg.dataset.judgements is not None:
        raise UserError("dataset.judgements= is of questions that are there, and questions= writes new ones; give one of them")
    if writing:
        writing.work.spending = spending
        writing.write(cfg.shard, prices, folder)
        collection, question_counts = writing.collection()
    else:
        split = cfg.dataset
        collection = open_training_split(
            split.train, split.path, split.positive_grade, split.answers, split.language, split.judgements, split.assisted
        )
    against = Other(cfg.against, judgements_of(other, collection.positive_grade)) if other else None
    query_ids = part_of(asked_first(cfg, collection), cfg.shard)
    wanted = set(query_ids)
    besides = [q for q in annotator.asked_besides(collection, cfg.seed) if q not in wanted]
    if besides:
        log.info("%d further queries that people judged are asked, for calibration alone", len(besides))
    compared = open_gate(gate, collection, annotator, cfg.seed)
    at_gate = [q for q in compared.every if q not in wanted] if compared else []
    if at_gate:
        log.info("%d further queries that people judged are asked, for the gate alone", len(at_gate))
    alone_counts = {"queries_for_calibration_alone": len(besides), "queries_for_gate_alone": len(at_gate)}
    besides += at_gate
    every, alone_asked = [*query_ids, *besides], set(besides)
    sampled = every[:SAMPLE] if cfg.dry_run else every
    pools = _pools(cfg, collection, annotator, sampled, None if cfg.dry_run else folder)
    pictured = next((q for q in pools if collection.queries[q].image), None)
    if pictured is not None:
        check_shown(pictured, annotator, map(model_class, asked_models))
    if note := annotator.notes(map(len, pools.values())):
        log.info("%s", note)
    if lacking := annotator.lacks(pools):
        log.warning("%s", lacking)
    questions = PooledQuestions(collection, pools)
    work = Work(annotator, questions, llms, Path(cfg.store), cfg.max_failure_rate, retry, spending)
    if cfg.dry_run:
        work.asker = annotator.at_most()
        if work.asker is not annotator:
            log.info("A dry run counts the second annotator as if the first doubted everything: it will be asked about less")
        return _dry_run(work, round(len(pools) / len(sampled) * len(every)), prices, folder, alone)
    asked = Asked(annotator, work.models, collection)
    if compared:
        compared.ask_first(work, pools, asked, folder)
    keep_guidelines(folder, annotator)
    compare_guidelines(Annotations(Path(cfg.store)), asked)
    annotation = _annotation(cfg, asked, pools, folder) if annotator.needs_llm else None
    with tracked(cfg, folder) as job:
        try:
            with progress_bar(work, prices) as bar:
                hydra.utils.instantiate(cfg.engine).run(work, bar)
        finally:  # what was judged is written however the asking ends
            compare_with_files(annotator)
            if annotation:
                annotation.keep(work.results, work.failed)
            judged, calibrated = annotator.finish(collection, work.results_of(pools), cfg.seed)
            judged = {q: judged[q] for q in judged if q not in alone_asked}
            pairs, unlabelled = sum(map(len, judged.values())), len(pools.keys() - alone_asked) - len(judged)
            works = [writing.work, work] if writing else [work]
            progress, models = joined(one.progress for one in works), work.models or works[0].models
            spent = ledger(progress, len(judged), pairs, sum(one.seconds for one in works), models, prices, unlabelled)
            spent |= alone_counts
            spent["models_served"] = {name: served for one in works for name, served in one.serves.items() if served}
            spent["material"] = _material(collection, pools)
            if writing:
                spent["questions"] = question_counts
            write_labels(folder, judged)
            write_rationales(folder, judged)
            _write_texts(folder, annotator, work)
            write_failures(folder, progress.failures)
            write_json(folder / "ledger.json", spent)
            shown = compared.to_refine(judged) if compared else judged
            _doubtful(folder, shown, cfg.doubtful)
            measured = quality(folder, collection, annotator, pools, shown, calibrated, against)
            save_manifest(
                folder,
                collection=collection.hash,
                model=spent["model"],
                store=str(cfg.store),
                annotation=annotation.key if annotation else None,
            )
            if annotator.needs_llm and len(llms) == 1 and not writing and model_class(llms[0]).steady:
                keep_rate(work.store, rate_name(work.models[0], annotator), spent)
            plain: dict[str, Any] = OmegaConf.to_container(cfg.annotator, resolve=True)  # type: ignore[assignment]
            track(job, folder, spent, measured, collection, Labelled(plain, work.models, shown))
            _report_partial_rankings(progress)
            if progress.failures or unlabelled:
                line = "%d calls failed, %d of %d questions are without labels"
                log.warning(line, len(progress.failures), unlabelled, len(judged) + unlabelled)
        if not judged:
            failed = f"{len(work.progress.failures)} calls failed, see {folder / 'failures.jsonl'}"
            raise UserError(f"no query got a label: {failed}")
    log_table(log, f"Annotated: {folder}", ("", "number"), _rows(spent))
    return spent


def asked_first(cfg: DictConfig, collection: Collection) -> list[str]:
    """The `limit` queries that `acquire` puts first, all where it is null, in its order. Doubt is that of `against`."""
    limit = len(collection.head(cfg.limit))  # refuses what is no number of queries
    acquire: Acquisition = hydra.utils.instantiate(cfg.acquire, _convert_="all")

    def pools(query_ids: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = hydra.utils.instantiate(cfg.candidates).pools(collection, query_ids)
        return found

    context = AcquisitionContext(list(collection.queries), cfg.seed, pools=pools, collection=collection, wanted=limit)
    if cfg.against:
        judgements = partial(judgements_of, read_labels(Path(cfg.against)), collection.positive_grade)
        context = replace(context, judgements=judgements)
    return acquire.order(context)[:limit]


def open_writing(cfg: DictConfig, llm: Mapping[str, Any]) -> Writing | None:
    """The questions that are to be written with the model of the config `llm`; None where the collection's own are taken."""
    source: QuestionSource = hydra.utils.instantiate(cfg.questions, _convert_="all")
    options: Any = OmegaConf.to_container(cfg.questions, resolve=True)
    return source.writing(
        Setting(cfg.dataset.train, cfg.dataset.path, llm, Path(cfg.store), cfg.seed, options, cfg.dataset.language)
    )


def _annotation(cfg: DictConfig, asked: Asked, pools: Mapping[str, Sequence[str]], folder: Path) -> Annotation:
    """The pools in the store, before anything is asked of them."""
    candidates: dict[str, Any] = OmegaConf.to_container(cfg.candidates, resolve=True)  # type: ignore[assignment]
    return Annotations(Path(cfg.store)).begin(asked, candidates, pools, {"folder": str(folder), "command": command_line()})


def llm_configs(cfg: DictConfig) -> list[Mapping[str, Any]]:
    """Plain configs of the run's model and of the further ones of an ensemble."""
    return [OmegaConf.to_container(llm, resolve=True) for llm in (cfg.llm, *cfg.llms.values())]  # type: ignore[misc]


def _fitting_models(annotator: Annotator, llms: Sequence[Any]) -> None:
    wanted = annotator.models
    if len(llms) != wanted:
        raise UserError(f"{len(llms)} models are given and {type(annotator).__name__} asks {wanted}; +llm@llms.NAME adds one")
    names = [identity_of(llm) for llm in llms] if wanted > 1 else []
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"llm and llms name {twice} more than once, which would say the same; raise annotator.samples instead")


def _pools(
    cfg: DictConfig, collection: Collection, annotator: Annotator, query_ids: Sequence[str], folder: Path | None
) -> dict[str, list[str]]:
    """Passage ids of each query that can be annotated. All pools are written in `folder`."""
    every = annotator.own_pools(collection)
    if every is None:
        every = hydra.utils.instantiate(cfg.candidates).pools(collection, query_ids)
    pools = {q: every[q] for q in query_ids if q in every}
    if folder is not None:
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


def _dry_run(work: Work, queries: int, prices: Prices, folder: Path, alone: bool) -> dict[str, Any]:
    """`queries`: how many there are like those of the work; `alone`: whether one process asks one model, which is tried."""
    questions = islice(work.questions, SAMPLE)
    sample = render(work.asker, questions, good_replies(Store(work.store), work.models))
    model = str(work.llms[0]["model"])
    rates, known = read_rates(work.store), rate_name(work.models[0], work.asker)
    rate = rates.get(known) or (tried_rate(work.llms[0], sample) if alone else None)
    prefixes = model_class(work.llms[0]).keeps_prefixes
    plan = estimate(sample, queries, TokenCounter(model), prices, rate, prefixes)
    write_json(folder / "estimate.json", plan)
    write_prompts(folder / "prompts.jsonl", ((q.id, one.stage, one.request) for q, calls in sample for one in calls))
    time = (
        f"about {plan['seconds']:.0f} s"
        if plan["seconds"] is not None
        else "time unknown until this model ran once (limit=20)"
    )
    log.info(
        "Nothing was asked. %d queries: %d calls, %d prompt tokens (%d of them cached), %d to write, %s%s; the store answers "
        "%d of the %d calls that were sampled; prompts in %s",
        plan["queries"], plan["calls"], plan["tokens_in"], plan["tokens_cached"], plan["tokens_out"], time, _cost(plan),
        plan["sampled_calls_kept"], plan["sampled_calls"], folder / "prompts.jsonl",
    )  # fmt: skip
    if plan["images"] and prices.image_tokens is None:
        line = "The tokens of the %d images that are shown are not counted; price.image_tokens=N counts N for each"
        log.warning(line, plan["images"])
    if prices.limit is not None and (plan["cost"] or 0) > prices.limit:
        log.warning("That is more than price.limit=%g: the run would stop before its end", prices.limit)
    return plan


def _doubtful(folder: Path, judged: Judged, share: float | None) -> None:
    """The list of questions for people, where it is wanted and the annotator says how sure it is."""
    if share is None or not judged:
        return
    try:
        number = write_doubtful(folder, judged, share)
    except UserError as error:
        log.warning("doubtful=%g: no list of questions for people: %s", share, error)
    else:
        path = folder / DOUBTFUL
        log.info("For people: %d questions of most doubt, %s (acquire=listed acquire.path=%s)", number, path, path)


def _write_texts(folder: Path, annotator: Annotator, work: Work) -> None:
    """What the first model wrote of the questions besides judgements, from the store."""
    for name, asker in annotator.written().items():
        chains = Chains(asker, Store(work.store), work.questions.name, [LLM(work.models[0])])
        write_jsonl(folder / f"{name}s.jsonl", ({"query_id": q, name: text} for q, text in chains.run(work.questions)))


def _report_partial_rankings(progress: Progress) -> None:
    for stage, counts in progress.stages.items():
        partial, appended = (counts.notes[name] for name in ("partial_rankings", "passages_appended"))
        if partial:
            line = "%s: %d of %d rankings are partial; the %d passages that they leave out follow as they stand"
            log.warning(line, stage, partial, counts.outcomes[Outcome.OK], appended)


def _rows(spent: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a run did and cost, as a table."""
    rows = [
        ("questions with labels", spent["queries"]),
        ("questions without", spent["queries_without_labels"]),
        ("passages labelled", spent["pairs"]),
        ("calls asked", spent["calls"]),
        ("calls from the store", spent["calls_answered_by_store"]),
        ("calls failed", spent["failed_calls"]),
        ("seconds", f"{spent['seconds']:.1f}"),
    ]
    costs = (("cost", "cost"), ("cost by people", "human_cost"))
    return rows + [(name, f"{spent[key]:.4g} {spent['currency']}") for name, key in costs if spent[key] is not None]


def _cost(costs: Mapping[str, Any]) -> str:
    parts = [f"{costs[name]:.4g} {costs['currency']}{who}" for name, who in (("cost", ""), ("human_cost", " for people"))
             if costs[name] is not None]  # fmt: skip
    return f" ({', '.join(parts)})" if parts else ""


def _material(collection: Collection, pools: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """How many of the passages shown hold what could break the protocol, by kind. Instructions are shown as they are."""
    shown_ids = list(dict.fromkeys(d for pool in pools.values() for d in pool))
    kinds = ("control_tokens", "role_markers", "identifiers", "answer_formats", "instructions")
    counts = dict.fromkeys(kinds, 0)
    defused = 0
    for row in collection.corpus.rows(shown_ids):
        seen = list(attempts(collection.corpus.text(row)))
        defused += any(kind != "instructions" for kind in seen)
        for kind in seen:
            counts[kind] += 1
    if kinds_seen := ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in counts.items() if n):
        log.info(
            "%d of %d passages hold what could pass for the protocol and are defused; seen: %s",
            defused, len(shown_ids), kinds_seen,
        )  # fmt: skip
    return {"passages": len(shown_ids), "passages_defused": defused, "by_kind": counts}
