"""The table that a training ends with: the trained retriever beside what it is measured against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from uar.evaluation.significance import LEVEL

TRAINED, KEPT = "trained", "kept"
ByBaseline = Mapping[str, Mapping[str, Mapping[str, Any]]]  # name -> slug -> measure


@dataclass(frozen=True)
class Compared:
    """`measure`: the one that is shown. `means`: of each baseline and of `ours`, the retriever that was trained or whose given
    weights were kept. `significance`: of ours against each baseline, see `significance.compare`. `seconds`: that a baseline
    took; 0 where the cache had its scores."""

    measure: str
    means: ByBaseline
    significance: ByBaseline
    seconds: Mapping[str, float]
    ours: str = TRAINED

    def spent(self) -> str:
        """The seconds in words."""
        return ", ".join(f"{name} {f'{s:.1f} s' if s else 'from the cache'}" for name, s in self.seconds.items())


def baseline_table(found: Compared) -> Table:
    """A row a test."""
    table = Table(caption_justify="left")
    table.add_column("test")
    table.add_column("questions", justify="right")
    for name in found.means:
        table.add_column(name, justify="right")
    for name in found.significance:
        table.add_column(f"{found.ours} − {name}", justify="right", no_wrap=True)
    for slug in found.means[found.ours]:
        values = [means[slug][found.measure] for means in found.means.values()]
        facts = [compared[slug][found.measure] for compared in found.significance.values()]
        table.add_row(slug, str(facts[0]["queries"]), *(f"{value:.3f}" for value in values), *map(_difference, facts))
    signs = f"+ and −: better and worse by a paired t-test over questions, p < {LEVEL} (Holm)"
    table.caption = f"kept: the weights from before training; {signs}" if found.ours == KEPT else signs
    return table


def _difference(facts: Mapping[str, Any]) -> str:
    p = facts["p t-test (Holm)"]
    tested = "" if p is None else f" (p {p:.2g})"
    return f"{facts['difference']:+.3f}{tested} {facts['mark'] or ' '}".replace("-", "−", 1)
