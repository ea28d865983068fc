"""What a model's greedy replies to questions of another split are worth, before it was tuned and after."""

import logging
from collections.abc import Mapping, Sequence

from uar.launch.small_table import log_table
from uar.tuning.rollouts import Asked
from uar.tuning.task import Case

log = logging.getLogger(__name__)
Scores = dict[str, dict[str, float]]  # by model and reward


def dev_rewards(cases: Sequence[Case], models: Mapping[str, Asked]) -> Scores:
    """Means by reward, their sum under `reward`, and the share of replies that cannot be read under `failed`. `models`: of one
    collection."""
    found: Scores = {}
    for name, asked in models.items():
        rolled = [one for (one,) in asked.replies(cases, 1, 0.0)]
        each = asked.rewards.each(asked.task, asked.collection, rolled)
        values = {"reward": asked.rewards.total(each), **each}
        means = {part: sum(of_part) / len(of_part) for part, of_part in values.items()}
        found[name] = {**means, "failed": sum(one.value is None for one in rolled) / len(rolled)}
    columns = list(next(iter(found.values())))
    rows: list[list[str | float | None]] = [[name, *values.values()] for name, values in found.items()]
    log_table(log, f"{asked.collection.slug}: mean rewards of {len(cases)} greedy replies", ["model", *columns], rows)
    return found
