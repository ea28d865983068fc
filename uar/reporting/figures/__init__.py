"""Figures of a report: one function each, in one table."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uar.reporting.figures.missing import Missing
from uar.reporting.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawn:
    """`svg`: for a page, its colours named as CSS variables; `missing`: why there is none."""

    key: str
    title: str
    caption: str = ""
    svg: str = ""
    missing: str = ""


Draw = Callable[[Sequence[Row], list[str]], "tuple[Figure, str]"]  # rows, notes -> figure, caption


def _all(pareto: bool) -> dict[str, tuple[str, Draw]]:
    from uar.reporting.figures import collections, cost, label_quality, training
    from uar.reporting.figures import human_share as budget

    return {
        "positives": ("Positives of a question", label_quality.positives),
        "annotators": ("Precision and recall of annotators", label_quality.precision_recall),
        "threshold": ("Share of the ranking that is positive", budget.threshold),
        "human_budget": ("Human budget", budget.human_budget),
        "loss": ("Loss while training", training.loss),
        "dev": ("Development score while training", training.dev),
        "beir": ("BEIR by set", collections.beir),
        "cost": ("Cost against quality", partial(cost.cost_and_quality, pareto=pareto)),
    }


def draw_all(rows: Sequence[Row], folder: Path, notes: list[str], pareto: bool = True) -> list[Drawn]:
    """Every figure whose data the rows hold, also as SVG and PDF in `folder`. What an earlier report left there of the others
    is removed. `pareto`: see `cost_and_quality`."""
    from uar.reporting.figures.style import inline, save, styled

    drawn = []
    for key, (title, draw) in _all(pareto).items():
        try:
            with styled():
                figure, caption = draw(rows, notes)
                save(figure, folder / key)
                drawn.append(Drawn(key, title, caption, inline(figure, key, f"{title}. {_plain(caption)}")))
        except Missing as missing:
            for suffix in (".svg", ".pdf"):
                (folder / key).with_suffix(suffix).unlink(missing_ok=True)
            drawn.append(Drawn(key, title, missing=str(missing)))
    return drawn


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)
