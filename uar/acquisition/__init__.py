"""Acquisition: which queries are labelled next, as an order of which a budget takes the first."""

from uar.acquisition.acquisition import Acquisition, AcquisitionContext
from uar.acquisition.random_acquisition import RandomAcquisition
from uar.acquisition.uncertainty_acquisition import UncertaintyAcquisition

__all__ = ["Acquisition", "AcquisitionContext", "RandomAcquisition", "UncertaintyAcquisition"]
