"""What annotation costs: calls, tokens, seconds, GPU-hours and money, against people judging the same pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uar.errors import UserError
from uar.llm.call import Asker
from uar.llm.progress import TOKENS, Counts, Progress
from uar.storage.files import read_json, write_json


@dataclass(frozen=True)
class Prices:
    """In `currency`: `gpu_hour` of one of `gpus` GPUs (null: it is not known how many); `input`, `cached` (null: as input) and
    `output` for a million tokens; `human_judgement` for one pair. Null: no price, and it is left out of the cost. `limit`:
    what a run may cost, see `Spending`; null: no limit."""

    currency: str = "USD"
    gpu_hour: float | None = None
    gpus: float | None = None
    input: float | None = None
    cached: float | None = None
    output: float | None = None
    human_judgement: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit <= 0:
            raise UserError(f"price.limit={self.limit}: more than 0 is needed, or null for no limit")
        for name in ("gpu_hour", "gpus", "input", "cached", "output", "human_judgement"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise UserError(f"price.{name}={value}: a price from 0 up is needed, or null for none")

    def gpu_hours(self, seconds: float | None) -> float | None:
        """Of `seconds` of wall time; None where these or the GPUs are not known."""
        return None if self.gpus is None or seconds is None else self.gpus * seconds / 3_600

    def cost(self, tokens: Mapping[str, float], seconds: float | None) -> float | None:
        """Of tokens_in, tokens_cached and tokens_out, and of `seconds` of the GPUs; None where neither has a price, or where
        GPU-hours have one and are not known, or no GPU worked."""
        if self.gpu_hour is None and self.input is None and self.output is None:
            return None
        hours = self.gpu_hours(seconds)
        if self.gpu_hour is not None and (hours is None or not self.gpus):
            return None
        cached = self.input if self.cached is None else self.cached
        read = (tokens["tokens_in"] - tokens["tokens_cached"]) * (self.input or 0) + tokens["tokens_cached"] * (cached or 0)
        by_token = (read + tokens["tokens_out"] * (self.output or 0)) / 1e6
        return by_token + (hours or 0) * (self.gpu_hour or 0)

    def times(self, factor: float) -> "Prices":
        """With the prices of tokens as a share of what they are."""
        return replace(self, **{n: factor * p for n in ("input", "cached", "output") if (p := getattr(self, n)) is not None})

    def people(self, pairs: int) -> float | None:
        """What people would cost for as many judgements."""
        return None if self.human_judgement is None else pairs * self.human_judgement


def ledger(
    progress: Progress,
    queries: int,
    pairs: int,
    seconds: float,
    models: list[str],
    prices: Prices,
    without_labels: int = 0,
) -> dict[str, Any]:
    """The content of ledger.json. `queries` and `pairs`: that got labels; `without_labels`: queries that did not; `seconds`:
    of wall time.

    `tokens_*` and `cost` are those of this run's calls; `per_1000_queries` are of all calls that the labels rest on, kept
    ones with the tokens that they took, and time in proportion to the calls.
    """
    total = progress.total
    computed = total.tokens["tokens_in"] - total.tokens["tokens_cached"] + total.tokens["tokens_out"]
    return {
        "model": models[0] if len(models) == 1 else models or None,
        "queries": queries,
        "queries_without_labels": without_labels,
        "pairs": pairs,
        **_calls(total),
        "failed_calls": len(progress.failures),
        "seconds": round(seconds, 2),
        "calls_per_second": round(total.asked / seconds, 2) if seconds else None,
        "computed_tokens_per_second": round(computed / seconds, 1) if seconds else None,
        "gpu_hours": _rounded(prices.gpu_hours(seconds), 5),
        "currency": prices.currency,
        "cost": _money(prices.cost(total.tokens, seconds)),
        "human_cost": _money(prices.people(pairs)),
        "kept_calls": {name: total.kept_tokens[name] for name in TOKENS},
        "per_1000_queries": _per_thousand(total, queries, seconds, prices),
        "stages": {
            name: {
                **_calls(counts),
                **counts.notes,
                "call_seconds": round(counts.seconds, 2),
                "outcome_rates": {o: round(n / counts.outcomes.total(), 5) for o, n in counts.outcomes.items()},
                "cost": _money(prices.cost(counts.tokens, seconds * counts.seconds / total.seconds if total.seconds else 0.0)),
            }
            for name, counts in progress.stages.items()
        },
    }


def _calls(counts: Counts) -> dict[str, Any]:
    return {
        "calls": counts.asked,
        "calls_answered_by_store": counts.kept,
        **{name: counts.tokens[name] for name in TOKENS},
        "outcomes": {str(o): n for o, n in counts.outcomes.items()},
    }


def _per_thousand(total: Counts, queries: int, seconds: float, prices: Prices) -> dict[str, Any] | None:
    if not queries:
        return None
    share = 1_000 / queries
    tokens = {name: share * (total.tokens[name] + total.kept_tokens[name]) for name in TOKENS}
    wall = share * seconds * (total.asked + total.kept) / total.asked if total.asked else None
    return {
        "calls": round(share * (total.asked + total.kept), 1),
        **{name: round(value, 1) for name, value in tokens.items()},
        "seconds": None if wall is None else round(wall, 2),
        "gpu_hours": _rounded(prices.gpu_hours(wall), 5),
        "cost": _money(prices.cost(tokens, wall)),
    }


def _money(value: float | None) -> float | None:
    return _rounded(value, 6)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def rate_name(model: str, asker: Asker) -> str:
    """Of a rate among those that are kept: texts are slower than likelihoods and single tokens."""
    return f"{model} {asker.rate}" if asker.rate else model


def keep_rate(store: Path, model: str, spent: Mapping[str, Any]) -> None:
    """Remember how fast a model was, for later estimates; runs that asked little say nothing."""
    if spent["calls"] >= 20 and spent["computed_tokens_per_second"]:
        path = store / "rates.json"
        write_json(path, {**read_rates(store), model: spent["computed_tokens_per_second"]})


def read_rates(store: Path) -> dict[str, float]:
    """Computed tokens a second, prompt and output together, by model."""
    path = store / "rates.json"
    return dict(read_json(path)) if path.is_file() else {}
