"""When so many calls failed that a run should not go on, and what is said then."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from uar.errors import UserError
from uar.llm.progress import Progress
from uar.llm.record import Outcome, Record
from uar.storage.files import write_jsonl

log = logging.getLogger(__name__)
JUDGE_RATE_FROM = 50  # calls before the failure rate may stop a run
SURE = 3.0  # standard deviations by which the rate must be past its limit while calls are still to come
FORMAT = "use a model that follows the format, or hold it to it where the server can (llm.constrain=true or json_schema)"
ADVICE = {
    Outcome.ERROR: "see what the server says: its log, the key, llm.model, and the length that it takes",
    Outcome.REFUSED: "the server or the model refuses what it is shown: use another one",
    Outcome.TRUNCATED: "give replies more room (annotator.selection_tokens, answer_tokens or reasoning_tokens)",
}


def stop_when_surely_failing(progress: Progress, max_failure_rate: float) -> None:
    """UserError where the calls so far leave no doubt that more than a share of all fail: where the lower end of Wilson's
    interval of the rate is past it."""
    failed, calls = len(progress.failures), progress.calls
    if calls >= JUDGE_RATE_FROM and lower_bound(failed, calls) > max_failure_rate:
        raise _too_many(progress, max_failure_rate)


def stop_where_too_many_failed(progress: Progress, max_failure_rate: float) -> None:
    """At the end of a run: UserError where more than a share of the calls failed; of few calls this is only told."""
    failed, calls = len(progress.failures), progress.calls
    if calls and failed / calls > max_failure_rate:
        error = _too_many(progress, max_failure_rate)
        if calls >= JUDGE_RATE_FROM:
            raise error
        log.warning("%s", error)


def lower_bound(failed: int, calls: int, z: float = SURE) -> float:
    """Wilson's: (p + z²/2n - z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), with p = failed / calls and n = calls."""
    p, square = failed / calls, z * z / calls
    spread = z * math.sqrt(p * (1 - p) / calls + square / (4 * calls))
    return (p + square / 2 - spread) / (1 + square)


def _too_many(progress: Progress, max_failure_rate: float) -> UserError:
    counts = progress.total.outcomes
    bad: Counter[str] = Counter(record.outcome for record in progress.failures)
    advice = ADVICE.get(Outcome(bad.most_common(1)[0][0]), FORMAT)
    last = progress.failures[-1]
    shares = ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common())
    return UserError(
        f"{len(progress.failures)} of {progress.calls} calls failed ({shares}), more than "
        f"max_failure_rate={max_failure_rate}; the last: {last.stage} {last.outcome}: {last.output[:120]!r}. What was "
        f"answered is kept; {advice}, or raise max_failure_rate. retry_failures names outcomes of replies in the store to ask "
        "again"
    )


def write_failures(folder: Path, failures: Sequence[Record], name: str = "failures.jsonl") -> None:
    """A file of that name, one line a call that gave nothing."""
    write_jsonl(
        folder / name,
        (
            {"query_id": r.query_id, "stage": r.stage, "outcome": r.outcome, "doc_ids": r.doc_ids, "output": r.output}
            for r in failures
        ),
    )
