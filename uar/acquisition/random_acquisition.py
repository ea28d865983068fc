"""Queries drawn at random."""

from dataclasses import dataclass

from uar.acquisition.acquisition import Acquisition, AcquisitionContext


@dataclass(frozen=True)
class RandomAcquisition(Acquisition):
    """A random order of the seed."""

    def order(self, context: AcquisitionContext) -> list[str]:
        return context.drawn
