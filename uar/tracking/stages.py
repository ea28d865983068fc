"""Where a stage of training starts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StageStart:
    """`step`: of the stage, from which a resumed job goes on (0 for a new stage); `steps_before`: of the stages before it."""

    number: int
    name: str
    step: int = 0
    steps_before: int = 0
