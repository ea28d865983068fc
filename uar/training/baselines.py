"""What a training is measured against: BM25, and the retriever as it was before."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from uar.collections import Collection
from uar.collections.presets import averaged
from uar.errors import UserError
from uar.evaluation.evaluator import Evaluator
from uar.evaluation.kept_scores import keep, measured
from uar.evaluation.metrics_file import given_kept, read_metrics
from uar.evaluation.retrieving import as_configured
from uar.evaluation.score_files import Values
from uar.evaluation.significance import compare, read_scores
from uar.launch.small_table import as_text
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.ranker import Ranker
from uar.retrievers.trainable import Trainable
from uar.storage.files import write_json
from uar.training.baseline_table import KEPT, TRAINED, Compared, baseline_table
from uar.training.untrained import Untrained

log = logging.getLogger(__name__)
NAMES = ("bm25", "untrained")
FILE = "baselines.json"
SHOWN = "nDCG@10"  # where it is among the measures, else the first of them
ADVICE = {
    "bm25": "retriever=fusion of python -m uar.evaluate joins both rankings",
    "untrained": "the training did harm: take a smaller training.learning_rate, fewer epochs, or more labels",
}


def chosen(given: Sequence[str] | str | None) -> list[str]:
    """The names in the option `baselines`, a list or one name; UserError for one that is not known."""
    names = [given] if isinstance(given, str) else list(given or [])
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UserError(f"baselines={', '.join(unknown)}: not known; allowed: {', '.join(NAMES)}, or [] for none")
    return [name for name in NAMES if name in names]


class Baselines:
    """Those that `cfg.baselines` names; made before the training, since the untrained weights are then still there."""

    def __init__(self, cfg: DictConfig, retriever: Trainable) -> None:
        self._rankers: dict[str, Ranker] = {}
        names = chosen(cfg.baselines)
        if "bm25" in names:
            self._rankers["bm25"] = BM25Ranker()
        if "untrained" in names and not retriever.is_baseline:
            log.info(
                "baselines: %s has new weights, which rank at random, so its order before training is not scored",
                retriever.name,
            )
        elif "untrained" in names:
            before = Untrained(retriever, lambda: hydra.utils.instantiate(cfg.retriever, _convert_="all"))
            self._rankers["untrained"] = as_configured(before, cfg)

    def compare(self, folder: Path, collections: Sequence[Collection], evaluator: Evaluator, ranker: Ranker) -> dict[str, Any]:
        """Score them on the collections that `ranker`, the trained one, has scores of in `folder`; write `baselines.json`,
        print a table of one measure, warn where it is below them. Returns their means by name; empty where there is nothing
        to compare. What goes wrong is a warning, since the training has its scores by then."""
        if not self._rankers or not collections:
            return {}
        try:
            found = self._compared(folder, collections, evaluator, ranker)
        except UserError as error:
            log.warning("baselines: not compared: %s", error)
            return {}
        means = {name: of for name, of in found.means.items() if name in self._rankers}
        write_json(folder / FILE, {"retrieval": means, "significance": found.significance, "seconds": found.seconds})
        log.info("Baselines, once for each test and model: %s", found.spent())
        log.info("%s on the tests\n%s", found.measure, as_text(baseline_table(found)))
        for line in below(found):
            log.warning("%s", line)
        return means

    def _compared(self, folder: Path, collections: Sequence[Collection], evaluator: Evaluator, ranker: Ranker) -> Compared:
        measures, how = evaluator.measures, evaluator.retrieving
        ours_is = KEPT if given_kept(read_metrics(folder)["train"]) else TRAINED
        ours = {c.slug: _of_measures(read_scores(folder, c.slug), measures) for c in collections}
        if ours_is == KEPT:  # then its scores are those of the untrained one
            for c in collections:
                keep(ranker, c, ours[c.slug], measures, how)
        scores = {name: measured(ranker, collections, measures, how, name) for name, ranker in self._rankers.items()}
        return Compared(
            measure=SHOWN if SHOWN in measures else measures[0],
            means={name: _means(found.values) for name, found in scores.items()} | {ours_is: _means(ours)},
            significance={name: compare(ours, found.values) for name, found in scores.items()},
            seconds={name: round(found.seconds, 2) for name, found in scores.items()},
            ours=ours_is,
        )


def below(found: Compared) -> list[str]:
    """A line for each test and baseline that the retriever is below."""
    lines = []
    for name, compared in found.significance.items():
        for slug, by_measure in compared.items():
            facts = by_measure[found.measure]
            ours, theirs = (found.means[at][slug][found.measure] for at in (found.ours, name))
            if ours < theirs:
                sure = "" if facts["mark"] else ", which may be chance"
                lines.append(
                    f"{slug}: {found.measure} {ours:.3f} of the {found.ours} retriever is below {theirs:.3f} of {name}{sure}; "
                    f"{ADVICE[name]}"
                )
    return lines


def _of_measures(values: Values, measures: Sequence[str]) -> Values:
    return {measure: values[measure] for measure in measures}


def _means(values: Mapping[str, Values]) -> dict[str, dict[str, float]]:
    means = {slug: {m: sum(v.values()) / len(v) for m, v in of_slug.items()} for slug, of_slug in values.items()}
    return averaged(means)
