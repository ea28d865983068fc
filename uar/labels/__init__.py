"""Label sources: judgements by people and by an LLM -> the stages that a retriever is trained in."""

from uar.labels.human import HumanLabels
from uar.labels.llm import LLMLabels
from uar.labels.mixed import MixedLabels
from uar.labels.source import Example, LabelContext, LabelSource, Stage

__all__ = ["Example", "HumanLabels", "LLMLabels", "LabelContext", "LabelSource", "MixedLabels", "Stage"]
