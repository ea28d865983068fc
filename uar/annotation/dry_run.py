"""What a run would ask, take and cost, from a sample of its questions; nothing is asked."""

import logging
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from uar.annotation.outputs import write_prompts
from uar.llm.costs.estimate import SAMPLE, TokenCounter, estimate, good_replies, render
from uar.llm.costs.ledger import Prices, rate_name, read_rates
from uar.llm.costs.trial import tried_rate
from uar.llm.engines.work import Work
from uar.llm.models import model_class
from uar.llm.store.store import Store
from uar.storage.files import write_json

log = logging.getLogger(__name__)


def dry_run(work: Work, queries: int, prices: Prices, folder: Path, tries: bool) -> dict[str, Any]:
    """Write `estimate.json` and `prompts.jsonl` and return the former. `queries`: how many there are like those of the work;
    `tries`: whether one process asks one model, which is tried."""
    questions = islice(work.questions, SAMPLE)
    sample = render(work.asker, questions, good_replies(Store(work.store), work.models))
    model = str(work.llms[0]["model"])
    rates, known = read_rates(work.store), rate_name(work.models[0], work.asker)
    rate = rates.get(known) or (tried_rate(work.llms[0], sample) if tries else None)
    prefixes = model_class(work.llms[0]).keeps_prefixes
    plan = estimate(sample, queries, TokenCounter(model), prices, rate, prefixes)
    write_json(folder / "estimate.json", plan)
    write_prompts(folder / "prompts.jsonl", ((q.id, one.stage, one.request) for q, calls in sample for one in calls))
    time = (
        f"about {plan['seconds']:.0f} s"
        if plan["seconds"] is not None
        else "time unknown until this model ran once (limit=20)"
    )
    log.info(
        "Nothing was asked. %d queries: %d calls, %d prompt tokens (%d of them cached), %d to write, %s%s; the store answers "
        "%d of the %d calls that were sampled; prompts in %s",
        plan["queries"], plan["calls"], plan["tokens_in"], plan["tokens_cached"], plan["tokens_out"], time, _cost(plan),
        plan["sampled_calls_kept"], plan["sampled_calls"], folder / "prompts.jsonl",
    )  # fmt: skip
    if plan["images"] and prices.image_tokens is None:
        line = "The tokens of the %d images that are shown are not counted; price.image_tokens=N counts N for each"
        log.warning(line, plan["images"])
    if prices.limit is not None and (plan["cost"] or 0) > prices.limit:
        log.warning("That is more than price.limit=%g: the run would stop before its end", prices.limit)
    return plan


def _cost(costs: Mapping[str, Any]) -> str:
    parts = [f"{costs[name]:.4g} {costs['currency']}{who}" for name, who in (("cost", ""), ("human_cost", " for people"))
             if costs[name] is not None]  # fmt: skip
    return f" ({', '.join(parts)})" if parts else ""
