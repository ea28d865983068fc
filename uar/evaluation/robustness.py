"""How much the scores of a ranker depend on the wording of the questions."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uar.collections import Collection
from uar.evaluation.measures import per_query
from uar.evaluation.score_files import Scores, Values, by_measure
from uar.expansion.perturbations import check_kinds, perturbed
from uar.expansion.query_texts import with_texts
from uar.launch.small_table import log_table
from uar.storage.files import read_json, write_json
from uar.storage.runs import Run

log = logging.getLogger(__name__)
FILE = "robustness.json"
ORIGINAL = "as they are"


@dataclass(frozen=True)
class Robustness:
    """`kinds` of changes, each of which words all questions once more; `seed`: of what they draw."""

    kinds: Sequence[str]
    seed: int

    def __post_init__(self) -> None:
        check_kinds(self.kinds, "perturb")

    def report(
        self,
        folder: Path,
        collection: Collection,
        measures: Sequence[str],
        scores: Scores,
        search: Callable[[Collection, Sequence[str]], Run],
    ) -> None:
        """Search for the questions in each wording, and write means and spread of each measure into `robustness.json`, beside
        those of other collections. `scores`: of the questions as they are, which say also which ones there are."""
        query_ids = list(dict.fromkeys(query_id for query_id, *_ in scores))
        values: dict[str, Values] = {ORIGINAL: by_measure(scores)}
        for kind in self.kinds:
            texts = perturbed(collection, query_ids, kind, self.seed)
            same = sum(text.split() == collection.queries[q].text.split() for q, text in texts.items())
            if same:
                log.info("%s: perturb=%s leaves %d of %d questions as they are", collection.slug, kind, same, len(texts))
            run = search(with_texts(collection, texts), query_ids)
            values[kind] = by_measure(per_query(collection, run, measures, query_ids))
        found = {measure: spread_of([of[measure] for of in values.values()]) for measure in measures}
        means = {name: {m: sum(of[m].values()) / len(query_ids) for m in measures} for name, of in values.items()}
        told = _read(folder) | {collection.slug: {"seed": self.seed, "means": means, "spread": found}}
        write_json(folder / FILE, told)
        rows: list[list[str | float | None]] = [
            [name, *(of[m] for m in measures)] for name, of in {**means, "spread": found}.items()
        ]
        log_table(log, f"{collection.slug}: questions in other wordings", ["wording", *measures], rows)


def spread_of(wordings: Sequence[Mapping[str, float]]) -> float:
    """Mean over questions of the greatest less the least value that its wordings have, each by question."""
    each = [max(of) - min(of) for of in ([values[q] for values in wordings] for q in wordings[0])]
    return sum(each) / len(each)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    return dict(read_json(path)) if path.is_file() else {}
