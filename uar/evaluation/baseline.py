"""The run that another is compared with: its scores, and whether both were measured alike."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uar.errors import UserError
from uar.evaluation.measured import differences, measured_on
from uar.evaluation.metrics_file import read_metrics
from uar.evaluation.rag.computed import read_computed
from uar.evaluation.rag.rag_settings import CLOSED_BOOK, ORACLE
from uar.evaluation.significance import compare, read_scores
from uar.storage.manifest import read_manifest

log = logging.getLogger(__name__)


class Baseline:
    """A folder of an evaluate or train run. `content`: hashes of the collections to compare on, by slug; UserError where the
    folder has no scores of one, or was measured on other texts, questions or judgements."""

    def __init__(self, folder: Path, content: Mapping[str, str]) -> None:
        self._folder = folder
        self._scores = {slug: read_scores(folder, slug) for slug in content}
        self._manifest = read_manifest(folder)
        theirs = self._manifest.get("collections") or {}
        changed = [slug for slug, now in content.items() if theirs.get(slug, now) != now]
        if changed:
            raise UserError(
                f"baseline={folder}: it was measured on other texts, questions or judgements of {', '.join(changed)}; "
                "evaluate it anew on these, or leave baseline out"
            )

    def compared(self, folder: Path) -> dict[str, dict[str, Any]]:
        """`significance.compare` of the scores in `folder`, without the collections that were measured with another length,
        precision or depth, and without measures of answers that another LLM or prompt judged, that were computed otherwise or
        with other gold answers, which is logged."""
        manifest = read_manifest(folder)
        alike, ours = {}, {}
        for slug, scores in self._scores.items():
            both = [("this run", measured_on(manifest, slug)), (str(self._folder), measured_on(self._manifest, slug))]
            if differs := differences(both):
                log.warning("%s: not compared with %s, as they were not measured alike: %s", slug, self._folder, differs)
                continue
            here, there = _made(folder, slug), _made(self._folder, slug)
            otherwise = [measure for measure, how in here.items() if there.get(measure, how) != how]
            if otherwise:
                line = "%s: %s: not compared with %s, where another LLM or prompt judged, or gold answers or settings differ"
                log.warning(line, slug, ", ".join(otherwise), self._folder)
            alike[slug], ours[slug] = (
                {measure: values for measure, values in of.items() if measure not in otherwise}
                for of in (scores, read_scores(folder, slug))
            )
        return compare(ours, alike)


def _made(folder: Path, slug: str) -> dict[str, str]:
    """How each measure of answers was judged or computed, by its name among the scores."""
    of_slug = read_metrics(folder)["rag"].get(slug, {})
    lines = {"": of_slug} | {f" ({line})": of_slug[line] for line in (CLOSED_BOOK, ORACLE) if line in of_slug}
    judged = {f"{m}{at}": said["how"] for at, found in lines.items() for m, said in found.get("judged", {}).items()}
    return judged | {f"{m}{at}": how for at in lines for m, how in read_computed(folder, slug).items()}
