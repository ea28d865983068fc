"""Annotators that judge utility beside a gold answer, as the hybrid test of arXiv 2504.05220 does, where a question has one;
else beside the answer that the LLM writes."""

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from uar.annotation.annotators import UtilRank, UtilSel
from uar.annotation.annotators.listwise import ListWise
from uar.llm.call import Chain, Question


class _BesideGold(ListWise):
    def answer(self, template: str, tokens: int, question: Question, among: Sequence[str]) -> Chain:
        if question.answers:
            return "; ".join(question.answers)
        return (yield from super().answer(template, tokens, question, among))


@dataclass(frozen=True)
class UtilSelBesideGold(_BesideGold, UtilSel):
    """UtilSel whose reference answer is the gold one; several of them are joined by semicolons."""


@dataclass(frozen=True)
class UtilRankBesideGold(_BesideGold, UtilRank):
    """UtilRank whose reference answer is the gold one; several of them are joined by semicolons."""


BESIDE_GOLD = {f"uar.annotation.annotators.{kind.__name__}": kind for kind in (UtilSel, UtilRank)}


def beside_gold(annotator: DictConfig) -> None:
    """Turn a config of UtilSel or UtilRank, or of an ensemble of them, into that of its kind beside gold answers."""
    for node in (annotator, annotator.get("member")):
        if node is not None and node.get("_target_") in BESIDE_GOLD:
            node["_target_"] = f"{__name__}.{node['_target_'].rpartition('.')[2]}BesideGold"
