"""Scores collection by collection."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from uar.collections.presets import expand
from uar.collections.reference import slug
from uar.reporting.figures.style import MARKERS, SERIES, capped, legend, need, new, wrapped
from uar.reporting.rows import Row

MEASURE = "nDCG@10"


def beir(rows: Sequence[Row], notes: list[str]) -> tuple[Figure, str]:
    """nDCG@10 of each set of BEIR that a row has, a point a row."""
    parts = {slug(reference) for reference in expand("beir-cqadupstack")}
    there = dict.fromkeys(s for row in rows for s in row.slugs if s.startswith("beir-") and s not in parts)
    sets = [s for s in there if any(row.values("retrieval", s, MEASURE) for row in rows)]
    need(len(sets) > 1, "needs scores of two sets of BEIR ('collections=[beir]')")
    names = [row.name for row in rows if any(row.values("retrieval", s, MEASURE) for s in sets)]
    figure, axes = new(1.6 + 0.24 * len(sets))
    kept = capped(names, "BEIR by set", notes)
    for at, name in enumerate(kept):
        row = next(row for row in rows if row.name == name)
        points = [(fmean(v), place) for place, s in enumerate(sets) if (v := row.values("retrieval", s, MEASURE))]
        values, places = zip(*points, strict=True)
        axes.plot(values, places, MARKERS[at], color=SERIES[at], markersize=5, alpha=0.9, label=wrapped(name))
    axes.set_yticks(range(len(sets)), [s.removeprefix("beir-").removesuffix("-test") for s in sets])
    axes.set(xlabel=MEASURE, ylim=(len(sets) - 0.5, -0.5))
    legend(axes, figure)
    return figure, f"{MEASURE} on each set; a point a row, the mean of its seeds."
