"""What a file of another tool says is checked before anything of it is kept."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from uar.errors import DataError
from uar.reviewing.exchange.review_pairs import Returned
from uar.reviewing.page_events import Refused, person

log = logging.getLogger(__name__)
DAY = 86_400.0  # seconds that a clock elsewhere may be ahead


def check_returned(path: Path, one: Returned, grades: int, length: int, now: float) -> None:
    """DataError with the row of a judgement that has no name, or a value out of its range. `length`: of the passage, in
    characters. `now`: seconds since 1970."""
    try:
        person(one.who)
    except Refused as error:
        raise DataError(path, f"who is {one.who!r}; {error}", one.row) from error
    if not 0 <= one.grade < grades:
        raise DataError(path, f"grade is {one.grade}; 0 to {grades - 1} are allowed (grades=)", one.row)
    ranges = {
        "time": (one.time, now + DAY, "seconds since 1970, none of the future,"),
        "seconds": (one.seconds, math.inf, "seconds from 0 on"),
        "confidence": (one.confidence, 1.0, "0 to 1"),
    }
    for name, (value, most, wanted) in ranges.items():
        number = isinstance(value, int | float) and math.isfinite(value)
        if value is not None and not (number and 0 <= value <= most):
            raise DataError(path, f"{name} is {value!r}; {wanted} are needed", one.row)
    marks = (one.start, one.end)
    if marks != (None, None) and (one.start is None or one.end is None or not 0 <= one.start < one.end <= length):
        raise DataError(path, f"start and end are {one.start} and {one.end}; two places in the passage are needed", one.row)


def latest_of_each(path: Path, found: Sequence[Returned]) -> list[Returned]:
    """One judgement a passage and person: the latest, the later row where the file has no times. The log says how many a
    later one replaces."""
    kept: dict[tuple[str, str, str], Returned] = {}
    for one in found:
        key = (one.query_id, one.doc_id, person(one.who))
        before = kept.get(key)
        if before is None or before.time is None or one.time is None or one.time >= before.time:
            kept[key] = one
    if len(found) > len(kept):
        line = "%s: %d judgements are left out, since the same person judges the passage again in the file"
        log.warning(line, path, len(found) - len(kept))
    return list(kept.values())
