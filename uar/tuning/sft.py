"""Supervised fine-tuning: right replies are learned."""

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

from uar.tuning import trl_training
from uar.tuning.token_rows import TokenRow, token_row
from uar.tuning.tuner import Tuner, Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SFT(Tuner):
    """Learns the targets of the task; cases without one are left out."""

    needs_targets: ClassVar[bool] = True

    def tune(self, work: Work) -> Any:
        return self.learn(
            work, [token_row(work.tokenizer, case, case.target) for case in work.cases if case.target is not None]
        )

    def learn(self, work: Work, rows: list[TokenRow]) -> Any:
        kept = [rows[at] for at in self.fitting(work, list(map(len, rows)), "prompts with replies")]
        replies = sum(len(row.reply) for row in kept)
        line = "%d replies are learned, %d tokens of prompts and %d of replies"
        log.info(line, len(kept), sum(map(len, kept)) - replies, replies)
        return trl_training.sft(lambda: work.base.loaded(self), work.tokenizer, kept, self, work.checkpoints, work.report)
