"""Annotators: how a pool is shown to an LLM and what is made of its replies."""

from uar.annotation.stages.annotator import Annotator, Call, Judgement, Question
from uar.annotation.stages.likelihood import Likelihood
from uar.annotation.stages.utilsel import UtilSel

__all__ = ["Annotator", "Call", "Judgement", "Likelihood", "Question", "UtilSel"]
