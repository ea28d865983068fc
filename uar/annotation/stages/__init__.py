"""Annotators: how a pool is shown to an LLM and what is made of its replies."""

from uar.annotation.judgement import Judged, Judgement
from uar.annotation.stages.annotator import Annotator, Call, Question
from uar.annotation.stages.ensemble import Ensemble
from uar.annotation.stages.imported import Imported
from uar.annotation.stages.likelihood import Likelihood
from uar.annotation.stages.pointwise import Pointwise
from uar.annotation.stages.qa_metric import QAMetric
from uar.annotation.stages.relsel import RelSel
from uar.annotation.stages.utilrank import UtilRank
from uar.annotation.stages.utilsel import UtilSel

__all__ = [
    "Annotator",
    "Call",
    "Ensemble",
    "Imported",
    "Judged",
    "Judgement",
    "Likelihood",
    "Pointwise",
    "QAMetric",
    "Question",
    "RelSel",
    "UtilRank",
    "UtilSel",
]
