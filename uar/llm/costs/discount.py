"""What models cost that are asked for less than the prices of a run say, such as in batches."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from uar.llm.costs.ledger import OF_TOKENS, Prices
from uar.llm.models import model_class

log = logging.getLogger(__name__)


def prices_of_one(price: Mapping[str, Any] | None, llm: Mapping[str, Any]) -> Prices:
    """What a plain config of prices says, None for no price, as one model costs it."""
    return discounted(Prices(**(price or {})), [llm])


def discounted(prices: Prices, llms: Sequence[Mapping[str, Any]]) -> Prices:
    """The prices of each model's tokens times what its plain config says, see `Model.price_factor`. `llms`: the run's own,
    then the further ones in the order that `Prices.further` numbers them by."""
    own, *others = [model_class(llm).price_factor(llm) for llm in llms] or [1.0]
    base = {name: price for name in OF_TOKENS if (price := getattr(prices, name)) is not None}
    further = dict(prices.further)
    for number, factor in enumerate(others, start=1):
        if factor != own or number in further:
            given = prices.further.get(number)
            whole = base if given is None else {**{n: p for n, p in base.items() if n != "cached"}, **given}
            further[number] = {name: factor * price for name, price in whole.items()}
    if base and {own, *others} != {1.0}:
        shares = ", ".join(f"{factor:g}" for factor in (own, *others))
        log.info("Tokens cost %s of price.input, price.cached and price.output (llm.price_factor)", shares)
    return replace(prices, **{name: own * price for name, price in base.items()}, further=further)
