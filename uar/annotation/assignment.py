"""Which questions of a collection are judged with which passages: drawn, checked and written down before anything is asked."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import hydra
from omegaconf import DictConfig

from uar.acquisition import Acquisition, AcquisitionContext
from uar.annotation.annotation import Asked
from uar.annotation.gate import Comparison, open_gate
from uar.annotation.means import Means
from uar.annotation.quality.from_files import judgements_of
from uar.collections import Collection
from uar.errors import UserError
from uar.llm.costs.estimate import SAMPLE
from uar.llm.engines.work import part_of
from uar.llm.models import identity_of, model_class
from uar.llm.pictured import check_shown
from uar.pools import write_pools
from uar.pools.stored_pools import ShownIds, pools_of
from uar.storage.labelled_pairs import LabelledPairs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assignment:
    """`compared`: the gate's questions, where there is a gate. `pools`: passages by question, of all `query_ids` that can be
    judged, or of a sample of them. `calibrating`, `at_gate`: those of the questions that nobody wants the labels of."""

    asked: Asked
    compared: Comparison | None
    pools: ShownIds
    query_ids: Sequence[str]
    calibrating: Sequence[str]
    at_gate: Sequence[str]

    @property
    def besides(self) -> set[str]:
        """The questions that nobody wants the labels of."""
        return {*self.calibrating, *self.at_gate}

    @property
    def estimated(self) -> int:
        """How many questions can be judged, where a sample of pools was made."""
        sampled = min(len(self.query_ids), SAMPLE)
        return round(len(self.pools) / sampled * len(self.query_ids))


def assign(cfg: DictConfig, means: Means, collection: Collection, folder: Path | None) -> Assignment:
    """`folder`: where all pools are written; None makes those of a sample."""
    annotator = means.annotator
    asked = Asked(annotator, [identity_of(llm) for llm in means.asked], collection)
    query_ids = part_of(asked_first(cfg, collection, means.against), cfg.shard)
    wanted = set(query_ids)
    calibrating = [q for q in annotator.asked_besides(collection, cfg.seed) if q not in wanted]
    if calibrating:
        log.info("%d further queries that people judged are asked, for calibration alone", len(calibrating))
    compared = open_gate(means.gate, asked, cfg.seed)
    at_gate = [q for q in compared.every if q not in wanted] if compared else []
    if at_gate:
        log.info("%d further queries that people judged are asked, for the gate alone", len(at_gate))
    every = [*query_ids, *calibrating, *at_gate]
    pools = _pools(cfg, asked, every if folder else every[:SAMPLE], folder)
    pictured = next((q for q in pools if collection.queries[q].image), None)
    if pictured is not None:
        check_shown(pictured, annotator, map(model_class, means.asked))
    if note := annotator.notes(pools.table.sizes()):
        log.info("%s", note)
    if lacking := annotator.lacks(pools):
        log.warning("%s", lacking)
    return Assignment(asked, compared, pools, every, calibrating, at_gate)


def asked_first(cfg: DictConfig, collection: Collection, against: LabelledPairs | None) -> list[str]:
    """The `limit` queries that `acquire` puts first, all where it is null, in its order. Doubt is that of `against`."""
    limit = len(collection.head(cfg.limit))  # refuses what is no number of queries
    acquire: Acquisition = hydra.utils.instantiate(cfg.acquire, _convert_="all")

    def pools(query_ids: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = hydra.utils.instantiate(cfg.candidates).pools(collection, query_ids)
        return found

    context = AcquisitionContext(list(collection.queries), cfg.seed, pools=pools, collection=collection, wanted=limit)
    if against is not None:
        judgements = partial(judgements_of, against, collection.positive_grade)
        context = replace(context, judgements=judgements)
    return acquire.order(context)[:limit]


def _pools(cfg: DictConfig, asked: Asked, query_ids: Sequence[str], folder: Path | None) -> ShownIds:
    """Passage ids of each query that can be annotated. All pools are written in `folder`."""
    collection, wants_gold = asked.collection, asked.annotator.needs_gold_answers
    if asked.own:
        every = asked.own.pools.chosen([q for q in query_ids if q in asked.own.pools])
    else:
        found = hydra.utils.instantiate(cfg.candidates).pools(collection, query_ids)
        every = pools_of(collection, {q: found[q] for q in query_ids if q in found})
    if folder is not None:
        write_pools(folder / "candidates" / f"{collection.slug}.jsonl", ShownIds(collection, every))
    sized = zip(every, every.sizes(), strict=True)
    good = [q for q, size in sized if size and (collection.queries[q].answers or not wants_gold)]
    pools = ShownIds(collection, every.chosen(good))
    if len(pools) < len(query_ids):
        missing = len(query_ids) - len(pools)
        log.info("%d of %d queries have no candidates or no target text and are left out", missing, len(query_ids))
    if not pools:
        raise UserError(
            f"{collection.reference}: no query with candidates to annotate; widen candidates or choose another split"
        )
    return pools
