"""How people judge: by which grades, seeing what, how many of them."""

from dataclasses import dataclass

from uar.errors import UserError
from uar.storage.ordering import rank_of

SUGGESTION = ("hidden", "shown", "random")
MODES = ("list", "passage")
OF_FILES = ""  # who sees what a file for another tool shows, for `Manner.shows`


@dataclass(frozen=True)
class Manner:
    """How people judge. `scale`: (grade, meaning) from the lowest up; `positive_grade`: from which a passage counts as
    positive. `mode`: `list`, all passages of a question at once, or `passage`. `suggestion`: whether they see what the LLM
    said: `hidden`, `shown`, or `random` by seed, question and person. `people`: how many judge a question that is not
    shared."""

    scale: tuple[tuple[int, str], ...]
    positive_grade: int
    mode: str
    suggestion: str
    people: int
    seed: int
    guideline: str
    guideline_hash: str
    answers: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (("mode", self.mode, MODES), ("suggestion", self.suggestion, SUGGESTION)):
            if value not in allowed:
                raise UserError(f"{name}={value!r}; allowed: {', '.join(allowed)}")
        if self.people < 1:
            raise UserError(f"people={self.people}: at least 1 is needed")
        if self.positive_grade not in range(1, len(self.scale)):
            last = len(self.scale) - 1
            raise UserError(f"positive_grade={self.positive_grade}: a grade of the scale from 1 to {last} is needed")

    def shows(self, query_id: str, who: str) -> bool:
        """Whether a person sees the suggestions for a question."""
        if self.suggestion == "random":
            return rank_of(self.seed, "suggestion", query_id, who)[0] < 128
        return self.suggestion == "shown"

    def in_files(self, query_id: str, label: int | None, grade: int | None) -> int | None:
        """What a file for another tool shows of the LLM's label and grade: a grade of the scale, of two grades the label; None
        for nothing."""
        return (label if len(self.scale) == 2 else grade) if self.shows(query_id, OF_FILES) else None
