"""Label sources: judgements by people, by an LLM or by clicks -> the stages that a retriever is trained in."""

from uar.labels.clicks import ClickLabels
from uar.labels.clicks_llm import ClickLLMLabels
from uar.labels.curriculum import Curriculum
from uar.labels.examples import Example, Pair
from uar.labels.human import HumanLabels
from uar.labels.llm import LLMLabels
from uar.labels.mixed import MixedLabels
from uar.labels.qa_metric import QAMetricLabels
from uar.labels.source import LabelContext, LabelSource, Stage
from uar.labels.teacher import TeacherLabels

__all__ = [
    "ClickLLMLabels",
    "ClickLabels",
    "Curriculum",
    "Example",
    "HumanLabels",
    "LLMLabels",
    "LabelContext",
    "LabelSource",
    "MixedLabels",
    "Pair",
    "QAMetricLabels",
    "Stage",
    "TeacherLabels",
]
