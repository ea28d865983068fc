"""A click log of users who look at a position with chance 1 / position, of queries asked as often as Zipf says."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

MOST = 1_000  # times that the most frequent query is asked
CLICK = {True: 0.6, False: 0.1}  # chance of a click on a passage that is looked at, useful or not


def write_clicks(path: Path, truth: Mapping[str, Mapping[str, bool]], seed: int) -> Path:
    """The n-th query is asked MOST / n times, and each time its passages stand in one of three orders, those that a weak
    ranker makes of what is useful."""
    drawn = np.random.default_rng(seed)
    lines = ["query\tdoc\timpressions\tclicks\tposition"]
    for place, (query_id, useful) in enumerate(truth.items(), start=1):
        docs = list(useful)
        for _ in range(3):
            order = sorted(docs, key=lambda d: -(useful[d] + drawn.normal(0, 1.5)))
            times = int(drawn.poisson(MOST / place / 3))
            for position, doc_id in enumerate(order, start=1):
                clicks = drawn.binomial(times, CLICK[useful[doc_id]] / position)
                if times:
                    lines.append(f"{query_id}\t{doc_id}\t{times}\t{clicks}\t{position}")
    path.write_text("\n".join(lines) + "\n")
    return path
