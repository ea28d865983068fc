"""What the annotators that show one passage a call share."""

from dataclasses import dataclass
from typing import ClassVar

from uar.annotation.prompts import ChatPrompt, load_chat
from uar.annotation.stages.annotator import Chatting, Shown
from uar.annotation.stages.scored import pools_together


@dataclass(frozen=True)
class PassageWise(Chatting):
    """`variables`: what its one prompt is supplied with. Passages are judged one by one, so that pools add up."""

    variables: ClassVar[frozenset[str]]

    @property
    def prompt(self) -> ChatPrompt:
        return load_chat(self.template, self.variables)

    @property
    def first_prompt_hash(self) -> str:
        return self.prompt.hash

    def annotated_pools(self, shown: Shown) -> dict[str, list[str]]:
        return pools_together(shown)
