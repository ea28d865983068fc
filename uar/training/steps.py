"""A run of so many steps, whatever its labels are: what makes rows of a comparison equally long."""

from collections.abc import Sequence
from dataclasses import replace

from uar.errors import UserError
from uar.labels import Stage
from uar.labels.example_columns import weights_of


def with_steps(stages: Sequence[Stage], steps: int | None, batch_size: int) -> list[Stage]:
    """Stages of `steps` optimizer steps together, each with the share that its epochs would have, at least one. None: they
    stay as they are. `batch_size`: of a stage without its own."""
    if steps is None:
        return list(stages)
    if steps < len(stages):
        raise UserError(f"training.steps={steps}: there are {len(stages)} stages, and each needs a step; give more")
    length = [s.epochs * int((weights_of(s.examples) > 0).sum()) / (s.batch_size or batch_size) for s in stages]
    ideal = [steps * own / sum(length) for own in length]
    given = [max(1, int(share)) for share in ideal]
    while sum(given) != steps:  # by the largest remainders
        step = 1 if sum(given) < steps else -1
        open_ones = [at for at in range(len(given)) if given[at] + step >= 1]
        given[max(open_ones, key=lambda at: step * (ideal[at] - given[at]))] += step
    return [replace(stage, steps=own) for stage, own in zip(stages, given, strict=True)]
