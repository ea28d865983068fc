"""What a prompt that grades one passage has the LLM reply, and which grade that is: prompts of several forms on one scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from string import ascii_uppercase

from uar.annotation.scale import Scale
from uar.errors import UserError
from uar.llm.prompts import ChatPrompt

SIDES = ("useful", "useless")


@dataclass(frozen=True)
class ReplyForm:
    """`choices`: the replies, one token each; `grades`: the grade that each stands for; `shown`: replies and meanings of the
    grades, as the prompt lists them."""

    choices: tuple[str, ...]
    grades: tuple[int, ...]
    shown: tuple[tuple[int | str, str], ...]

    def by_grade(self, logprobs: Mapping[str, float], number: int) -> tuple[float, ...]:
        """(grades,) log-likelihoods from the lowest of `number` grades up; -inf for one that no reply stands for."""
        of_grade = dict(zip(self.grades, self.choices, strict=True))
        return tuple(logprobs[of_grade[grade]] if grade in of_grade else -inf for grade in range(number))

    def reply_of(self, grade: int) -> str:
        """The reply for a grade; where none stands for it, that of the next lower one."""
        return max((own, reply) for own, reply in zip(self.grades, self.choices, strict=True) if own <= grade)[1]


def reply_form(prompt: ChatPrompt, scale: Scale, positive_grade: int) -> ReplyForm:
    """The prompt's `replies`: `numbers` of the grades; `reversed`, the lowest number for the highest grade, where the prompt
    asks how useless a passage is; `letters`, A for the highest grade; or a mapping of two replies to `useful` (grade
    `positive_grade`) and `useless` (grade 0). UserError for anything else."""
    replies, meanings = prompt.replies, dict(scale)
    downwards = sorted(meanings, reverse=True)
    if isinstance(replies, Mapping):
        if sorted(map(str, replies.values())) != sorted(SIDES) or not all(isinstance(reply, str) for reply in replies):
            raise UserError(  # YAML reads Yes without quotes as true
                f'prompt {prompt.name}: replies: {dict(replies)}; two in quotes, {{"Yes": useful, "No": useless}}, are needed'
            )
        grades = tuple(positive_grade if side == "useful" else 0 for side in replies.values())
        return ReplyForm(tuple(replies), grades, scale)
    forms = {
        "numbers": [(str(grade), grade) for grade in meanings],
        "reversed": [(str(number), grade) for number, grade in enumerate(downwards)],
        "letters": list(zip(ascii_uppercase, downwards, strict=False)),
    }
    if replies not in forms:
        raise UserError(
            f"prompt {prompt.name}: replies: {replies!r}; allowed: {', '.join(forms)}, or two replies and their sides"
        )
    choices, grades = zip(*forms[replies], strict=True)
    return ReplyForm(choices, grades, tuple((reply, meanings[grade]) for reply, grade in forms[replies]))
