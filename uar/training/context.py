"""What a label source is given: the training split, its pools, and the judgements of an annotation."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.annotation.annotation import Annotation, Asked, Concluded
from uar.annotation.annotation_tracking import Labelled
from uar.annotation.annotators import Annotator
from uar.annotation.judged_blocks import of_queries
from uar.annotation.judgement import Judged
from uar.annotation.means import llm_configs
from uar.annotation.run_settings import annotator_of, run_config
from uar.annotation.selection import Annotations
from uar.collections import Collection
from uar.collections.reference import MINI
from uar.errors import UserError
from uar.labels import LabelContext
from uar.labels.combination import Combination
from uar.labels.combine import combine
from uar.launch.other_commands import annotate_command
from uar.llm.models import identity_of
from uar.pools import PoolSource
from uar.training.shared_pools import SharedPools, pools_key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Used:
    """An annotation that a training takes labels from: what trackers are given, and what the manifest says. Without the
    former it is how several were joined."""

    labelled: Labelled | None
    facts: Mapping[str, Any]


def label_context(
    cfg: DictConfig, collection: Collection, pool_source: PoolSource, folder: Path, used: list[Used]
) -> LabelContext:
    """Of a composed train config. Pools that are made are kept in `folder`; annotations that are read are added to `used`."""
    query_ids = collection.head(cfg.limit)
    if not query_ids:
        raise UserError(f"{collection.reference}: the split has no queries; choose another one")
    key = pools_key(OmegaConf.to_container(cfg.candidates, resolve=True), collection)

    def shared(source: PoolSource, name: str) -> SharedPools:
        path = folder / "candidates" / f"{name}.jsonl"
        return SharedPools(path, key, collection, lambda wanted: source.pools(collection, wanted))

    pools = shared(pool_source, collection.slug)
    ranked = replace(pool_source, include_positive=False)
    unaware = shared(ranked, f"{collection.slug}.unaware") if pool_source.include_positive else pools

    @cache
    def judgements() -> Judged:  # a curriculum or an allocation asks again
        return _judgements(cfg, context, used)

    context = LabelContext(collection, query_ids, pools, judgements, cfg.seed, unaware)
    return context


def _judgements(cfg: DictConfig, context: LabelContext, used: list[Used]) -> Judged:
    """Of the run's annotator, joined with those of the further ones where there are any."""
    collection = context.collection
    shipped = (MINI / "annotations",) if collection.reference.startswith("mini:") else ()
    annotations = Annotations(Path(cfg.store), shipped)
    combination: Combination = hydra.utils.instantiate(cfg.combine, _convert_="all")
    if not cfg.annotators:
        alone = _of_one(cfg, collection, annotations, cfg.annotator, llm_configs(cfg), used)
        return _combined(combination, {"first": alone}, context, used) if combination.takes_one else alone
    if cfg.annotation not in ("latest", "union"):
        raise UserError(f"annotation={cfg.annotation}: a run folder has one annotator; with annotators: latest or union")
    every = {"first": cfg.annotator, **cfg.annotators}
    judged = {}
    for name, annotator in every.items():
        llms = llm_configs(cfg)[:1] if name not in cfg.llms else [cfg.llms[name]]
        judged[name] = _of_one(cfg, collection, annotations, annotator, llms, used)
    return _combined(combination, judged, context, used)


def _combined(combination: Combination, judged: Mapping[str, Judged], context: LabelContext, used: list[Used]) -> Judged:
    votes = replace(context, judgements=lambda: combine(judged, "majority"))
    joined, facts = combination.combine(judged, votes)
    if facts:
        used.append(Used(None, facts))
    return joined


def _of_one(
    cfg: DictConfig,
    collection: Collection,
    annotations: Annotations,
    config: DictConfig,
    llms: Sequence[Mapping[str, Any]],
    used: list[Used],
) -> Judged:
    annotator: Annotator = hydra.utils.instantiate(config, _convert_="all")
    asked = Asked(annotator, [identity_of(llm) for llm in llms] if annotator.needs_llm else [], collection)
    if annotator.needs_llm and cfg.annotation not in ("latest", "union"):
        asked = _of_run(asked, Path(cfg.annotation))
    annotation = annotations.choose(asked, cfg.annotation)
    if annotation is None:
        raise UserError(
            f"{collection.reference}: the store {cfg.store} holds no annotation of it by {_who(asked)} "
            f"({annotations.held(collection)}); make one with: "
            f"{annotate_command(cfg, config, OmegaConf.create(dict(llms[0])))}"
        )
    concluded = annotation.concluded()
    _report(cfg, config, llms, annotation, concluded)
    judged = asked.annotator.finish(collection, concluded.judgements, _seed(cfg, annotation))[0]  # also by those besides
    if annotation.besides:
        judged = of_queries(judged, [q for q in judged if q not in annotation.besides])
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    facts = {
        "which": cfg.annotation,
        "key": annotation.key,
        "annotator": asked.annotator.asks(),
        "models": list(asked.models),
        "questions": len(annotation.wanted),
        "failed": len(concluded.failed),
        "incomplete": len(concluded.incomplete),
        "run": annotation.about.get("run"),
    }
    used.append(Used(Labelled(plain, list(asked.models), judged), facts))
    return judged


def _of_run(asked: Asked, folder: Path) -> Asked:
    """As the run of a folder asked: with this command's annotator where it asks the same, so that its threshold counts."""
    annotator, models = annotator_of(run_config(folder))
    if (annotator.asks(), models) == (asked.annotator.asks(), list(asked.models)):
        return asked
    log.warning("annotation=%s: annotator and llm are those of the run, not of this command", folder)
    return Asked(annotator, models, asked.collection)


def _seed(cfg: DictConfig, annotation: Annotation) -> int:
    """That of the run that asked, which drew the questions to calibrate on."""
    run = annotation.about.get("run", {})
    if run and cfg.annotation not in ("latest", "union"):
        run = run_config(Path(cfg.annotation))
    seed: int = run.get("seed", cfg.seed)
    return seed


def _report(
    cfg: DictConfig, config: DictConfig, llms: Sequence[Mapping[str, Any]], annotation: Annotation, concluded: Concluded
) -> None:
    """Say which annotation is taken; UserError where it has no labels."""
    run, asked = annotation.about.get("run") or {}, annotation.asked
    number = f"{len(annotation.wanted)} questions"
    if annotation.besides:
        number += f", without {len(annotation.besides)} that were asked for calibration or a gate alone"
    log.info("Labels: annotation=%s by %s, %s%s", cfg.annotation, _who(asked), number, _when(run))
    if note := asked.annotator.notes(len(pool.rows) for pool in annotation.pools.values()):
        log.info("%s", note)
    if concluded.failed:
        log.warning("%d questions are left out, since their replies failed or could not be read", len(concluded.failed))
    if not concluded.incomplete and concluded.judgements:
        return
    commands = annotation.commands(concluded.incomplete)
    command = ", then ".join(commands) or annotate_command(cfg, config, OmegaConf.create(dict(llms[0])))
    missing = f"{len(concluded.incomplete)} of {len(annotation.pools)} questions lack replies"
    if not concluded.judgements:
        raise UserError(
            f"{asked.collection.reference}: no question of the annotation has labels ({missing}, {len(concluded.failed)} "
            f"failed); complete it with: {command}"
        )
    log.warning("%s and are left out; complete them with: %s", missing, command)


def _who(asked: Asked) -> str:
    models = f" with {', '.join(asked.models)}" if asked.models else ""
    return f"{type(asked.annotator).__name__}{models}"


def _when(run: Mapping[str, Any]) -> str:
    return f", last run {run['folder']}" if run.get("folder") else ""
