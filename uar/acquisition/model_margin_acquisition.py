"""Queries for which a retriever hardly tells its first passage from its second."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uar.acquisition.acquisition import Acquisition, AcquisitionContext, distinct
from uar.errors import UserError

if TYPE_CHECKING:
    from uar.retrievers.ranker import Ranker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelMarginAcquisition(Acquisition):
    """The smallest difference first between the best score and the second, by `retriever`, of a query's candidates, of which
    several with one text count once. Queries with less than two come last, at random."""

    retriever: "Callable[[], Ranker]" = field(repr=False)

    def order(self, context: AcquisitionContext) -> list[str]:
        query_ids = context.drawn
        if context.collection is None:
            raise UserError("acquire=model_margin needs the passages, and there are none here; use acquire=random")
        pools = {q: list(p) for q, p in context.pools(query_ids).items() if p}
        places = distinct(context.collection.corpus, pools)
        run = self.retriever().score(context.collection, {q: [pools[q][at] for at in own] for q, own in places.items()})
        margins = {q: hits[0][1] - hits[1][1] for q, hits in run.items() if len(hits) > 1}
        without = len(query_ids) - len(margins)
        if without:
            log.info("Margin: %d of %d queries have less than two candidates and come last", without, len(query_ids))
        return sorted(query_ids, key=lambda q: margins.get(q, math.inf))
