"""Queries as they stand."""

from dataclasses import dataclass

from uar.acquisition.acquisition import Acquisition, AcquisitionContext


@dataclass(frozen=True)
class FirstAcquisition(Acquisition):
    """The order of the file."""

    def order(self, context: AcquisitionContext) -> list[str]:
        return context.unlabelled
