"""Queries that are typical and doubtful (DUAL, arXiv 2503.00867): the least certain of those that IDDS would take next."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from uar.acquisition.acquisition import Acquisition, AcquisitionContext
from uar.acquisition.idds_acquisition import IDDSAcquisition
from uar.acquisition.uncertainty_acquisition import UncertaintyAcquisition
from uar.errors import UserError

if TYPE_CHECKING:
    from uar.retrievers.ranker import Ranker


@dataclass(frozen=True)
class DualAcquisition(Acquisition):
    """Each pick is the least certain, by `measure`, of the next `window` in the order of IDDS; every `random_every`-th is
    drawn instead, 0 for none. So the order is nested, where DUAL chooses once for each budget. `weight` and `retriever` are
    those of IDDS, `measure` that of uncertainty."""

    retriever: "Callable[[], Ranker]" = field(repr=False)
    weight: float = 0.667
    measure: str = "auto"
    window: int = 100
    random_every: int = 4

    def __post_init__(self) -> None:
        if self.window < 1 or self.random_every < 0:
            raise UserError(
                f"acquire.window={self.window} must be 1 or more, acquire.random_every={self.random_every} 0 or more"
            )

    def order(self, context: AcquisitionContext) -> list[str]:
        wanted = None if context.wanted is None else context.wanted + self.window
        typical = IDDSAcquisition(self.retriever, self.weight).order(replace(context, wanted=wanted))
        doubt = {q: at for at, q in enumerate(UncertaintyAcquisition(self.measure).order(context))}  # 0 for the least sure
        picked: dict[str, None] = {}
        drawn, coming = iter(context.drawn), iter(typical)
        window = list(islice(coming, self.window))
        while len(picked) < len(typical):
            if self.random_every and len(picked) % self.random_every == self.random_every - 1:
                query_id = next(q for q in drawn if q not in picked)
            else:
                query_id = min(window, key=doubt.__getitem__)
            picked[query_id] = None
            if query_id in window:
                window.remove(query_id)
                window += islice((q for q in coming if q not in picked), 1)
        return list(picked)
