"""How good the labels of a run are: agreement with people, by stage, with another annotator; as files in its folder."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from uar.annotation.annotators import Annotator, Judged
from uar.annotation.judged_blocks import of_queries
from uar.annotation.quality.agreement import agreement, table_of
from uar.annotation.quality.comparison import compare
from uar.annotation.quality.held_answers import held_answers
from uar.annotation.quality.positions import by_position
from uar.collections import Collection
from uar.launch.small_table import log_table
from uar.storage.files import write_json

LONGEST_LINE = 10  # shares in the log
log = logging.getLogger(__name__)
JUDGES = {"human": "people", "generated": "the passages that the questions were written from"}


class Other(NamedTuple):
    """Judgements to compare with, and the name of what they were read from."""

    name: str
    judged: Judged


def quality(
    folder: Path,
    collection: Collection,
    annotator: Annotator,
    pools: Mapping[str, Sequence[str]],
    judged: Judged,
    calibrated: dict[str, Any] | None,
    against: Other | None,
) -> dict[str, Any] | None:
    """Write `agreement.json` and its figures where people, or the labels of `against`, say something of the same passages, or
    passages were shown together. `pools`: passage ids in the order shown.
    Queries that the annotator was calibrated on count nowhere."""
    fitted_on = set(calibrated["queries"]) if calibrated else set()
    judged = of_queries(judged, [q for q in judged if q not in fitted_on])
    compared = collection.by_people(q for q in judged if q in collection.qrels)  # with them alone where they judged some
    mine = of_queries(judged, compared)
    found = agreement(collection, mine, annotator.grades) or {}
    if found:
        origin = collection.origin_of(compared[0])
        _log(JUDGES[origin], found)
        found |= {"judged_by": origin}
        if collection.assisted:
            found["assisted_pairs"] = collection.assisted
            line = "%d pairs were judged while an LLM's suggestion was seen: agreement with it is too high"
            log.warning(line, collection.assisted)
        held = held_answers(collection, mine)
        if held:
            found["answers"] = held
            _log_answers(JUDGES[origin], held)
        stages = {stage: agreement(collection, _labelled_from(mine, grade)) for stage, grade in annotator.stage_grades.items()}
        found |= {"stages": stages} if stages else {}
    elif fitted_on:
        log.warning("All queries that people judged are those of the calibration: no agreement; lower calibration_queries")
    found |= {"calibration": calibrated} if calibrated else {}
    places = by_position(annotator, pools, judged)
    if places:
        found["by_position"] = places
        shares = ", ".join(f"{row['positives']:.2f}" for row in places[:LONGEST_LINE])
        log.info("Share of label 1 by the position shown: %s", shares + (", ..." if len(places) > LONGEST_LINE else ""))
    if against:
        found["against"] = compare(judged, against.judged)
        if found["against"] is None:
            log.warning("against=%s: no passage is judged in both", against.name)
        else:
            _log(against.name, found["against"])
    if not found:
        return None
    from uar.annotation.quality.figures import write_figures  # brings matplotlib

    write_json(folder / "agreement.json", found)
    write_figures(folder, found)
    return found


def _log(judge: str, found: dict[str, Any]) -> None:
    log_table(log, f"Against {judge}", ("agreement", "value", "95 % interval"), table_of(found))


def _log_answers(judge: str, held: dict[str, Any]) -> None:
    groups = {"both": "both chose", "people_alone": f"only {judge} chose", "annotator_alone": "only the annotator chose"}
    rows = [
        [words, str(held[name]["passages"]), "–" if (share := held[name]["hold_an_answer"]) is None else f"{share:.3f}"]
        for name, words in {**groups, "neither": "nobody chose"}.items()
    ]
    log_table(log, f"Passages of {held['questions']} questions with gold answers", ("that", "passages", "hold one"), rows)


def _labelled_from(judged: Judged, grade: int) -> Judged:
    return {q: [replace(j, label=int(j.grade >= grade)) for j in judgements] for q, judgements in judged.items()}
