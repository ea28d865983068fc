"""Which records of a store are meant: by what they are about, who replied, what became of it, and when."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from uar.errors import UserError
from uar.llm.record import Outcome

TEXTS = ("collection", "model", "stage", "template", "outcome")
TIMES = ("before", "after")


def rule(where: Mapping[str, Any]) -> pc.Expression:
    """Of options by name, all of which hold; None is none. Texts are compared whole, `*` stands for any characters; a time is
    an ISO date, with or without a time of day, of this machine's clock. UserError for what is no such option."""
    expression = pc.scalar(True)
    for name, value in where.items():
        if value is None:
            continue
        if name in TEXTS:
            if name == "outcome" and value not in (*Outcome, "*"):
                raise UserError(f"where.outcome={value!r}; allowed: {', '.join(Outcome)}")
            pattern = ".*".join(map(re.escape, str(value).split("*")))
            expression &= pc.match_substring_regex(pc.field(name), f"^{pattern}$")
        elif name in TIMES:
            time = pc.field("time")
            expression &= time < _seconds(name, value) if name == "before" else time >= _seconds(name, value)
        else:
            raise UserError(f"where.{name} is not known; allowed: {', '.join((*TEXTS, *TIMES))}")
    return expression


def _seconds(name: str, value: Any) -> pa.Scalar:
    try:
        return pa.scalar(datetime.fromisoformat(str(value)).timestamp())
    except ValueError as error:
        raise UserError(f"where.{name}={value!r}: no date; write it as 2026-11-30 or 2026-11-30T14:00") from error
