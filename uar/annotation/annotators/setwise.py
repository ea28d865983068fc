"""Set-wise: of up to twenty passages a call names the most useful one; a tournament of such calls gives the best few."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from uar.annotation.annotators.annotator import ranked_judgements
from uar.annotation.annotators.picking import WIDEST, Picking
from uar.annotation.annotators.scored import Rule, top_percent
from uar.errors import UserError
from uar.llm.call import Chain, Question
from uar.llm.record import Outcome


@dataclass(frozen=True)
class Setwise(Picking):
    """One call shows up to `window` passages under letters and asks for the most useful one (the prompt form of Rank-R1, arXiv
    2503.06034). The probability of each letter is read, so that the call ranks its passages too.

    The `k` best of a pool are found by a tournament: the picks of windows meet in windows, and a passage that was picked is
    taken out, after which only the windows on its way are asked again. See `most_calls`. With a model that contradicts itself
    nowhere the first `k` are exact. The others follow: where one window holds the pool by their probability, else as they
    stand. Grade and label 1 are the best `threshold` percent of the pool (rounded down, at least one), of the `k` at most.

    A model that reasons has the letter read from its text, and gives no probability.
    """

    k: int = 10
    window: int = WIDEST
    threshold: float = 10.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"annotator.k={self.k}: at least 1 passage is picked")
        if not 2 <= self.window <= WIDEST:
            raise UserError(f"annotator.window={self.window}: 2 to {WIDEST} passages a call are needed")
        Rule("top_percent", self.threshold)
        super().__post_init__()

    @property
    def stages(self) -> tuple[str, ...]:
        return ("setwise",)

    def notes(self, sizes: Iterable[int]) -> str | None:
        size = max(sizes, default=0)
        calls = most_calls(size, self.window, self.k)
        return f"the best {self.k} of {size} passages take {calls} calls a question at most" if size else None

    def judgements(self, question: Question) -> Chain:
        pool = list(question.passages)
        logprobs: dict[str, float] = {}
        picked = yield from self._best(question, pool, min(self.k, len(pool)), logprobs)
        if picked is None:
            return None
        rest = [d for d in pool if d not in set(picked)]
        if len(pool) <= self.window:
            rest.sort(key=lambda d: -logprobs.get(d, 0.0))
        order = [*picked, *rest]
        best = set(top_percent(order, self.threshold)[: self.k]) if order else set()
        return ranked_judgements(order, {d: int(d in best) for d in order}, {}, positive=1)

    def _best(self, question: Question, pool: Sequence[str], k: int, logprobs: dict[str, float]) -> Chain:
        """Part of a chain: the first `k` picks; None where a reply failed. `logprobs` is given what the calls say of each
        passage, the last one counting."""
        rounds = [_windows(pool, self.window)]  # the passages that meet, by window
        winners: list[list[str | None]] = []
        while k and (not winners or len(winners[-1]) > 1):
            if winners:
                rounds.append(_windows([d for d in winners[-1] if d is not None], self.window))
            won = yield from self._picks(question, rounds[-1], logprobs)
            if won is None:
                return None
            winners.append(won)
        picked: list[str] = []
        while len(picked) < k:
            if picked:
                again = yield from self._without(question, picked[-1], pool, rounds, winners, logprobs)
                if again is None:
                    return None
            picked.append(str(winners[-1][0]))
        return picked

    def _without(
        self,
        question: Question,
        gone: str,
        pool: Sequence[str],
        rounds: Sequence[list[list[str]]],
        winners: Sequence[list[str | None]],
        logprobs: dict[str, float],
    ) -> Chain:
        """Part of a chain: take a passage out of the tournament and ask the windows on its way again; None where a reply
        failed."""
        place, comes = pool.index(gone), None
        for windows, won in zip(rounds, winners, strict=True):
            place //= self.window
            window = windows[place]
            at = window.index(gone)
            window[at : at + 1] = [] if comes is None else [comes]
            found = yield from self._picks(question, [window], logprobs)
            if found is None:
                return None
            comes = won[place] = found[0]
        return True

    def _picks(self, question: Question, windows: Sequence[Sequence[str]], logprobs: dict[str, float]) -> Chain:
        """Part of a chain: the pick of each window, asked together; one passage alone is it, an empty window has none. None
        where a reply failed."""
        asked = [window for window in windows if len(window) > 1]
        replies = yield [self.pick(question, window) for window in asked]
        picks: dict[tuple[str, ...], str] = {}
        for window, reply in zip(asked, replies, strict=True):
            outcome, said = self.said(reply, len(window))
            if outcome != Outcome.OK:
                return None
            logprobs.update(zip(window, said, strict=True))
            picks[tuple(window)] = window[said.index(max(said))]
        return [picks.get(tuple(window), window[0] if window else None) for window in windows]


def most_calls(passages: int, window: int, k: int) -> int:
    """Calls that the best `k` take at most: one a window in each round, and one a round for each further pick. Fewer only
    where windows run out of passages."""
    rounds, calls = 0, 0
    left = passages
    while left > 1:
        calls += left // window + int(left % window > 1)
        left = -(-left // window)
        rounds += 1
    return calls + rounds * max(0, min(k, passages) - 1)


def _windows(pool: Sequence[str], size: int) -> list[list[str]]:
    return [list(pool[start : start + size]) for start in range(0, len(pool), size)]
