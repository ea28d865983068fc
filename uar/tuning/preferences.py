"""Direct preference optimisation: better replies are preferred to worse ones."""

from dataclasses import dataclass
from typing import Any, ClassVar

from uar.tuning import trl_training
from uar.tuning.best_of import check_sampling, drawn_pairs
from uar.tuning.token_rows import drawn_row
from uar.tuning.tuner import Tuner, Work


@dataclass(frozen=True)
class DPO(Tuner):
    """Of `samples` replies a case, drawn at `temperature`, the best is preferred to the worst where their rewards differ by
    `margin` at least (arXiv 2305.18290). `beta`: how dear it is to go away from the model as it was."""

    samples: int
    temperature: float
    margin: float
    beta: float

    needs_rewards: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sampling(self.samples, self.temperature)

    def tune(self, work: Work) -> Any:
        chosen = drawn_pairs(work, self.samples, self.temperature, self.margin)
        pairs = [(drawn_row(work.tokenizer, a.rolled), drawn_row(work.tokenizer, b.rolled)) for a, b in chosen]
        longer = [max(map(len, pair)) for pair in pairs]
        kept = [pairs[at] for at in self.fitting(work, longer, "prompts with replies")]
        return trl_training.dpo(
            lambda: work.base.loaded(self), work.tokenizer, kept, self.beta, self, work.checkpoints, work.report
        )
