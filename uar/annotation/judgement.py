"""What an annotator says of a passage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Judgement:
    """Label 0/1, a grade, a score where the method has one, a rank from 1.

    `uncertainty`: from 0 (sure) up, where the method knows it. `logprobs`: of each grade from the lowest up, in nat. `by`:
    who said so, where the judgements of several annotators were joined. `votes`: the label of each member of an ensemble, in
    their order; None where it gave none. `reason`: why, in the words of who said so; it is kept in the store and the run
    folder, and not with what was concluded.
    """

    doc_id: str
    label: int
    grade: int
    score: float | None
    rank: int
    uncertainty: float | None = None
    logprobs: tuple[float, ...] = ()
    by: str = ""
    votes: tuple[int | None, ...] = ()
    reason: str = ""


Judged = Mapping[str, Sequence[Judgement]]  # by query id
