"""Which numbers of the runs a W&B page shows, and how: sections of panels, the same for the workspace and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uar.reporting.rows import JUDGED
from uar.reporting.run_folders import RunFolder

STEP = "trainer/global_step"
FIRST = ("nDCG@10", "RR@10", "R@100", "AP", "EM", "F1", "ROUGE-L")  # measures in the order of their panels
COSTS = ("ledger/cost", "ledger/human_cost", "ledger/gpu_hours", "ledger/calls", "ledger/tokens_in", "ledger/tokens_out")
QUALITY = ("precision", "recall", "average_positives", "kappa", "human_positive_ranked_first")


@dataclass(frozen=True)
class Panels:
    """A section: bars of `bars` (logged names), curves of what the regular expressions in `curves` find, over the steps of
    training, and the tables that were logged under `tables`."""

    title: str
    text: str
    bars: tuple[str, ...] = ()
    curves: Mapping[str, str] | None = None
    tables: tuple[str, ...] = ()


def panels_of(runs: Sequence[RunFolder]) -> list[Panels]:
    """Of the collections and measures that the runs have."""
    slugs = {part: _slugs(runs, part) for part in ("retrieval", "rag")}
    return [
        Panels("Retrieval", "Means over the questions of each collection.", _bars(runs, "retrieval", slugs["retrieval"])),
        Panels("RAG", "Answers made from the retrieved passages.", _bars(runs, "rag", slugs["rag"])),
        Panels(
            "Training",
            "Loss and dev score; a new stage goes on where the one before it ended.",
            curves={"loss": ".*/loss", "dev nDCG@10": "dev/nDCG@10", "stage": "stage"},
        ),
        Panels(
            "Annotation",
            "What the labels cost, and how far they agree with people's.",
            (*COSTS, *(f"agreement/{name}" for name in QUALITY)),
            tables=("disagreements",),
        ),
        Panels(
            "Questions and answers",
            "Scores of each question and the answers that were generated.",
            tables=(*(f"scores/{s}" for s in slugs["retrieval"]), *(f"generations/{s}" for s in slugs["rag"])),
        ),
    ]


def _slugs(runs: Sequence[RunFolder], part: str) -> list[str]:
    return list(dict.fromkeys(slug for run in runs for slug in run.metrics[part]))


def _bars(runs: Sequence[RunFolder], part: str, slugs: Sequence[str]) -> tuple[str, ...]:
    names = []
    for slug in slugs:
        of_slug: dict[str, Any] = {m: v for run in runs for m, v in run.metrics[part].get(slug, {}).items()}
        names += [f"{part}/{slug}/{m}" for m in (*FIRST, *of_slug.get(JUDGED, {})) if m in of_slug]
    return tuple(names)
