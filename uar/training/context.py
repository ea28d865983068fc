"""What a label source is given: the training split, its pools, and what the annotators made of the kept records."""

from functools import cache
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uar.annotation.annotate_run import llm_configs
from uar.annotation.judgement import Judged
from uar.annotation.replay import kept_judgements
from uar.collections import Collection
from uar.collections.reference import MINI
from uar.errors import UserError
from uar.labels import LabelContext
from uar.labels.combine import combine
from uar.llm.models import identity_of
from uar.llm.store.store import Store
from uar.pools import PoolSource
from uar.tracking.artefacts import Annotations
from uar.training.annotate_command import annotate_command
from uar.training.shared_pools import SharedPools, pools_key


def label_context(
    cfg: DictConfig, collection: Collection, pool_source: PoolSource, folder: Path, used: list[Annotations]
) -> LabelContext:
    """Of a composed train config. Pools that are made are kept in `folder`; annotations that are read are added to `used`."""
    query_ids = collection.head(cfg.limit)
    if not query_ids:
        raise UserError(f"{collection.reference}: the split has no queries; choose another one")
    key = pools_key(OmegaConf.to_container(cfg.candidates, resolve=True), collection)
    path = folder / "candidates" / f"{collection.slug}.jsonl"
    pools = SharedPools(path, key, collection, lambda wanted: pool_source.pools(collection, wanted))

    @cache
    def judgements() -> Judged:  # replays the store, and a curriculum or an allocation asks again
        return _judgements(cfg, collection, used)

    return LabelContext(collection, query_ids, pools, judgements, cfg.seed)


def _judgements(cfg: DictConfig, collection: Collection, used: list[Annotations]) -> Judged:
    """Of the run's annotator, joined with those of the further ones where there are any."""
    shipped = [MINI / "annotations"] if collection.reference.startswith("mini:") else []
    store = Store(Path(cfg.store), also=shipped)
    if not cfg.annotators:
        return _of_one(cfg, collection, store, cfg.annotator, cfg.llm, [identity_of(llm) for llm in llm_configs(cfg)], used)
    every = {"first": cfg.annotator, **cfg.annotators}
    found = {}
    for name, annotator in every.items():
        llm = cfg.llms.get(name) or cfg.llm
        found[name] = _of_one(cfg, collection, store, annotator, llm, [identity_of(llm)], used)
    return combine(found, cfg.combine)


def _of_one(
    cfg: DictConfig, collection: Collection, store: Store, annotator: Any, llm: Any, models: list[str], used: list[Annotations]
) -> Judged:
    made = hydra.utils.instantiate(annotator, _convert_="all")
    judged = kept_judgements(collection, made, store, models, cfg.seed)
    if not judged:
        raise UserError(
            f"{collection.reference}: the store {cfg.store} holds no annotations of it by {type(made).__name__} with "
            f"{', '.join(models)}; make them with: {annotate_command(cfg, annotator, llm)}"
        )
    plain: dict[str, Any] = OmegaConf.to_container(annotator, resolve=True)  # type: ignore[assignment]
    used.append(Annotations(plain, models if made.needs_llm else [], judged))
    return judged
