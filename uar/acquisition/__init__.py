"""Acquisition: which queries are labelled next, as an order of which a budget takes the first."""

from uar.acquisition.acquisition import Acquisition, AcquisitionContext
from uar.acquisition.core_set_acquisition import CoreSetAcquisition
from uar.acquisition.dual_acquisition import DualAcquisition
from uar.acquisition.first_acquisition import FirstAcquisition
from uar.acquisition.idds_acquisition import IDDSAcquisition
from uar.acquisition.listed_acquisition import ListedAcquisition
from uar.acquisition.model_margin_acquisition import ModelMarginAcquisition
from uar.acquisition.random_acquisition import RandomAcquisition
from uar.acquisition.uncertainty_acquisition import UncertaintyAcquisition

__all__ = [
    "Acquisition",
    "AcquisitionContext",
    "CoreSetAcquisition",
    "DualAcquisition",
    "FirstAcquisition",
    "IDDSAcquisition",
    "ListedAcquisition",
    "ModelMarginAcquisition",
    "RandomAcquisition",
    "UncertaintyAcquisition",
]
