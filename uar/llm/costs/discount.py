"""What models cost that are asked for less than the prices of a run say, such as in batches."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from uar.llm.costs.ledger import Prices
from uar.llm.models import model_class

log = logging.getLogger(__name__)


def discounted(prices: Prices, llms: Sequence[Mapping[str, Any]]) -> Prices:
    """The prices times what plain configs of models say, see `Model.price_factor`. Where several models say different things
    the greatest counts, so that a limit holds."""
    factors = [model_class(llm).price_factor(llm) for llm in llms]
    factor = max(factors, default=1.0)
    if len(set(factors)) > 1:
        log.warning("The models cost %s of price.*: all are counted at %g", ", ".join(f"{f:g}" for f in factors), factor)
    elif factor != 1 and (prices.input or prices.output):
        log.info("Tokens cost %g of price.input, price.cached and price.output (llm.price_factor)", factor)
    return prices.times(factor)
