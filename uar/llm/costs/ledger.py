"""What annotation costs: calls, tokens, seconds, GPU-hours and money, against people judging the same pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from uar.errors import UserError
from uar.llm.call import Asker
from uar.llm.progress import TOKENS, Counts, Progress
from uar.storage.files import read_json, write_json
from uar.storage.locks import alone

OF_TOKENS = ("input", "cached", "output")


@dataclass(frozen=True)
class Prices:
    """In `currency`: `gpu_hour` of one of `gpus` GPUs (null: it is not known how many); `input`, `cached` (null: as input) and
    `output` for a million tokens; `human_judgement` for one pair. Null: no price, and it is left out of the cost. `limit`:
    what a run may cost, see `Spending`; null: no limit. `image_tokens`: what an image counts, at most; null: it is not known.
    `models`: `input`, `cached` and `output` of further models, by their
    names in `llms`, where they differ; `further`: the same by the number that calls name a model by, see `for_models`."""

    currency: str = "USD"
    gpu_hour: float | None = None
    gpus: float | None = None
    input: float | None = None
    cached: float | None = None
    output: float | None = None
    human_judgement: float | None = None
    limit: float | None = None
    image_tokens: int | None = None
    models: Mapping[str, Mapping[str, float]] | None = None
    further: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit <= 0:
            raise UserError(f"price.limit={self.limit}: more than 0 is needed, or null for no limit")
        for name in ("gpu_hour", "gpus", "input", "cached", "output", "human_judgement"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise UserError(f"price.{name}={value}: a price from 0 up is needed, or null for none")
        if self.image_tokens is not None and self.image_tokens < 0:
            raise UserError(f"price.image_tokens={self.image_tokens}: tokens from 0 up are needed, or null where not known")
        for model, own in (self.models or {}).items():
            if set(own) - set(OF_TOKENS) or not all(isinstance(v, int | float) and v >= 0 for v in own.values()):
                raise UserError(f"price.models.{model}={dict(own)}: prices from 0 up of {', '.join(OF_TOKENS)} are needed")

    def for_models(self, names: Sequence[str]) -> "Prices":
        """With the prices of further models by number, `names` in the order of `llms`. UserError for a price of another."""
        models = self.models or {}
        if unknown := sorted(set(models) - set(names)):
            raise UserError(
                f"price.models names {', '.join(unknown)}; allowed: {', '.join(names) or 'none, as llms is empty'}"
            )
        return replace(self, further={n: models[name] for n, name in enumerate(names, start=1) if name in models})

    def of(self, llm: int) -> "Prices":
        """Those of one of the run's models: what it has no price of its own for costs as that of the first."""
        own: Any = self.further.get(llm)
        return replace(self, **{"cached": None, **own}, models=None, further={}) if own else self

    def gpu_hours(self, seconds: float | None) -> float | None:
        """Of `seconds` of wall time; None where these or the GPUs are not known."""
        return None if self.gpus is None or seconds is None else self.gpus * seconds / 3_600

    def cost(
        self, tokens: Mapping[str, float], seconds: float | None, further: Mapping[int, Mapping[str, float]] | None = None
    ) -> float | None:
        """Of tokens_in, tokens_cached and tokens_out, and of `seconds` of the GPUs; None where neither has a price, or where
        GPU-hours have one and are not known, or no GPU worked. `further`: those of the tokens that are of further models."""
        others = [(self.of(llm), of_model) for llm, of_model in (further or {}).items() if llm in self.further]
        by_token = any(price is not None for one in (self, *(o for o, _ in others)) for price in (one.input, one.output))
        if self.gpu_hour is None and not by_token:
            return None
        hours = self.gpu_hours(seconds)
        if self.gpu_hour is not None and (hours is None or not self.gpus):
            return None
        instead = sum(own.of_tokens(of_model) - self.of_tokens(of_model) for own, of_model in others)
        return self.of_tokens(tokens) + instead + (hours or 0) * (self.gpu_hour or 0)

    def of_tokens(self, tokens: Mapping[str, float]) -> float:
        """Of tokens_in, tokens_cached and tokens_out alone, 0 where they have no price."""
        cached = self.input if self.cached is None else self.cached
        read = (tokens["tokens_in"] - tokens["tokens_cached"]) * (self.input or 0) + tokens["tokens_cached"] * (cached or 0)
        return (read + tokens["tokens_out"] * (self.output or 0)) / 1e6

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
        "cost": _money(prices.cost(total.tokens, seconds, total.further)),
        "human_cost": _money(prices.people(pairs)),
        "kept_calls": {name: total.kept_tokens[name] for name in TOKENS},
        "per_1000_queries": _per_thousand(total, queries, seconds, prices),
        "stages": {
            name: {
                **_calls(counts),
                **counts.notes,
                "call_seconds": round(counts.seconds, 2),
                "outcome_rates": {o: round(n / counts.outcomes.total(), 5) for o, n in counts.outcomes.items()},
                "cost": _money(prices.cost(counts.tokens, _share(seconds, counts.seconds, total.seconds), counts.further)),
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
    further = {
        llm: {name: share * (total.further[llm][name] + total.kept_further[llm][name]) for name in TOKENS}
        for llm in total.further.keys() | total.kept_further.keys()
    }
    wall = share * seconds * (total.asked + total.kept) / total.asked if total.asked else None
    return {
        "calls": round(share * (total.asked + total.kept), 1),
        **{name: round(value, 1) for name, value in tokens.items()},
        "seconds": None if wall is None else round(wall, 2),
        "gpu_hours": _rounded(prices.gpu_hours(wall), 5),
        "cost": _money(prices.cost(tokens, wall, further)),
    }


def _share(seconds: float, part: float, whole: float) -> float:
    return seconds * part / whole if whole else 0.0


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
        with alone(store / "rates.lock"):
            write_json(store / "rates.json", {**read_rates(store), model: spent["computed_tokens_per_second"]})


def read_rates(store: Path) -> dict[str, float]:
    """Computed tokens a second, prompt and output together, by model."""
    path = store / "rates.json"
    return dict(read_json(path)) if path.is_file() else {}
