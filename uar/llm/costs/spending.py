"""A run that may cost so much and no more: what a call may cost at most is known before it is sent."""

import time

from uar.errors import UserError
from uar.llm.costs.ledger import Prices
from uar.llm.progress import TOKENS
from uar.llm.record import Generate, Outcome, Reply, Request, Score, shown_images

AROUND = 16  # tokens around a message and at the end of a prompt, at most


class LimitReached(UserError):
    """The next call might pass `price.limit`, and none is on its way."""


class Spending:
    """What was spent, and what calls on their way may cost. No tokenizer makes more tokens than there are bytes, so that is
    what a prompt counts until the reply says how many it had; a reply counts as long as it may get. GPU-hours count by the
    clock, from the first call on; a call on its way counts what one took on average."""

    def __init__(self, prices: Prices) -> None:
        self._prices, self.limit = prices, float(prices.limit or 0)
        nothing = dict.fromkeys(TOKENS, 0)
        if prices.cost(nothing, 1.0, dict.fromkeys(prices.further, nothing)) is None:
            raise UserError(
                f"price.limit={prices.limit}: nothing has a price; give price.input and price.output, or price.gpu_hour and "
                "price.gpus"
            )
        self._by_tokens = self._ahead = self._replies = 0.0
        self._flying = 0
        self._begun: float | None = None

    @property
    def spent(self) -> float:
        return self._by_tokens + self._hours(0.0 if self._begun is None else time.perf_counter() - self._begun)

    def fits(self, request: Request, llm: int = 0) -> bool:
        """Whether the call may be sent: all that is spent, on its way, and this call, stay within the limit."""
        by_clock = (self.spent - self._by_tokens) / self._replies if self._replies else 0.0
        return self.spent + self._ahead + by_clock * (self._flying + 1) + self.at_most(request, llm) <= self.limit

    def sent(self, request: Request, llm: int = 0) -> None:
        self._begun = time.perf_counter() if self._begun is None else self._begun
        self._flying += 1
        self._ahead += self.at_most(request, llm)

    def came(self, request: Request, reply: Reply, llm: int = 0) -> None:
        """Where a reply does not say what it took, it counts as much as it might."""
        self._flying -= 1
        self._replies += 1
        self._ahead -= self.at_most(request, llm)
        unsaid = not reply.tokens_in and reply.outcome != Outcome.ERROR
        tokens = self._most(request) if unsaid else {name: getattr(reply, name) for name in TOKENS}
        self._by_tokens += self._prices.of(llm).of_tokens(tokens)

    def at_most(self, request: Request, llm: int = 0) -> float:
        """Of one call, by its tokens."""
        return self._prices.of(llm).of_tokens(self._most(request))

    def reached(self, request: Request, llm: int = 0) -> LimitReached:
        prices, may = self._prices, self.at_most(request, llm)
        return LimitReached(
            f"price.limit={prices.limit:g} {prices.currency}: {self.spent:.6g} are spent, and the next call may cost {may:.2g}"
        )

    def _hours(self, seconds: float) -> float:
        return (self._prices.gpu_hours(seconds) or 0.0) * (self._prices.gpu_hour or 0.0)

    def _most(self, request: Request) -> dict[str, int]:
        texts = [request.prefix, request.target] if isinstance(request, Score) else [text for _, text in request.messages]
        read = sum(len(text.encode("utf-8", "surrogatepass")) + AROUND for text in texts) + AROUND
        if images := shown_images(request):
            if self._prices.image_tokens is None:
                raise UserError(
                    f"price.limit={self._prices.limit}: how many tokens an image counts is not known; give price.image_tokens"
                )
            read += images * self._prices.image_tokens
        return {"tokens_in": read, "tokens_cached": 0, "tokens_out": request.limit if isinstance(request, Generate) else 1}
