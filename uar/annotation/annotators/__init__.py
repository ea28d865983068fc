"""Annotators: how a pool is shown to an LLM and what is made of its replies."""

from uar.annotation.annotators.annotator import Annotator
from uar.annotation.annotators.answer_metric import QAMetric
from uar.annotation.annotators.cascade import Cascade
from uar.annotation.annotators.ensemble import Ensemble
from uar.annotation.annotators.imported import Imported
from uar.annotation.annotators.likelihood import Likelihood
from uar.annotation.annotators.pairwise import Pairwise
from uar.annotation.annotators.pointwise import Pointwise
from uar.annotation.annotators.relsel import RelSel
from uar.annotation.annotators.setwise import Setwise
from uar.annotation.annotators.sliding import Sliding
from uar.annotation.annotators.utilrank import UtilRank
from uar.annotation.annotators.utilsel import UtilSel
from uar.annotation.judgement import Judged, Judgement
from uar.llm.call import Call, Question

__all__ = [
    "Annotator",
    "Call",
    "Cascade",
    "Ensemble",
    "Imported",
    "Judged",
    "Judgement",
    "Likelihood",
    "Pairwise",
    "Pointwise",
    "QAMetric",
    "Question",
    "RelSel",
    "Setwise",
    "Sliding",
    "UtilRank",
    "UtilSel",
]
