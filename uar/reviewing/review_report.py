"""The report on people's labels: agreement between people, what suggestions did to them, speed."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uar.annotation.quality.from_files import judgements_of
from uar.errors import DataError, UserError
from uar.launch.small_table import log_table
from uar.reviewing.anchoring import anchoring, wrong_suggestions
from uar.reviewing.judged_rows import JudgedRows, judged_rows
from uar.reviewing.people_agreement import by_person, people_agreement
from uar.storage.files import write_json
from uar.storage.judgement_files import SCHEMA, JudgementFile, read_judgements
from uar.storage.labelled_pairs import read_pairs

log = logging.getLogger(__name__)
NAME = "review_report.json"
RESAMPLES = 2_000
FEW = 30  # judgements with a suggestion, or without
WORDS = {
    "agrees_shown": "labels equal to the LLM's, suggestion shown",
    "agrees_hidden": "the same, hidden",
    "anchoring": "anchoring: the difference",
    "adoption": "adoption: of what people saw otherwise (below 0: turned against it)",
    "kappa_shown": "kappa of the LLM to people, shown",
    "kappa_hidden": "the same, hidden",
    "sure_shown": "labels people were sure of, shown",
    "sure_hidden": "the same, hidden",
    "time_ratio": "time a label, shown over hidden",
    "taken_shown": "wrong suggestions taken, shown",
    "taken_hidden": "labels wrong in the same way, hidden",
    "taken_more": "the difference",
}


def review_report(files: Sequence[Path], out: Path, gold: Path | None, gold_grade: int | None, seed: int) -> dict[str, Any]:
    """Write `review_report.json` to `out`, log its tables and return it. `gold`: labels by which suggestions are wrong,
    positive from `gold_grade` up, None: by their own labels, or as in the review where they are grades; without `gold`, what
    others said of a passage who saw no suggestion."""
    read = [read_judgements(path) for path in files]
    table = pa.concat_tables([SCHEMA.empty_table(), *(one.table for one in read)])
    if not len(table):
        raise UserError(f"report={', '.join(map(str, files))}: no judgements yet")
    for file, one in zip(files, read, strict=True):
        if one.table["who"].null_count:
            raise DataError(file, "it does not say who judged, which agreement needs; give the judgements.parquet of a review")
    positive_grade = _same_kind(read)
    rows = judged_rows(table, positive_grade)
    if len(np.unique(np.stack([rows.passage, rows.person]), axis=1).T) < len(table):
        raise UserError("report: a person judged a passage in two of the files; give each judgement once")
    right = _others(rows) if gold is None else _gold(table, gold, positive_grade, gold_grade)
    found: dict[str, Any] = {
        "judgements": len(table),
        "questions": len(rows.query_ids),
        "made_with_suggestion": int(rows.shown.sum()),
        "guidelines": dict(Counter(table["guideline"].fill_null("").to_pylist())),
        "people": by_person(rows),
        "agreement": people_agreement(rows.of(~rows.shown), RESAMPLES, seed),
        "anchoring": anchoring(rows, RESAMPLES, seed),
        "wrong_suggestions": wrong_suggestions(rows, right, RESAMPLES, seed),
    }
    write_json(out / NAME, found)
    _log(found)
    log.info("The report: %s", out / NAME)
    return found


def _same_kind(read: Sequence[JudgementFile]) -> int:
    """The positive grade of all files. UserError where their scales differ, or they judge other texts under the same ids."""
    least = sorted({one.positive_grade for one in read})
    if len(least) > 1:
        raise UserError(f"report: the files have different positive grades ({', '.join(map(str, least))}); give them apart")
    scales = {tuple(sorted(one.about["grades"].items())) for one in read if "grades" in one.about}
    if len(scales) > 1:
        raise UserError("report: the files have different scales of grades; give them apart")
    texts: dict[tuple[str, str], str] = {}
    for one in read:
        for query_id, doc_id, text in zip(*(one.table[n].to_pylist() for n in ("query_id", "doc_id", "texts")), strict=True):
            if text is not None and texts.setdefault((query_id, doc_id), text) != text:
                raise UserError(
                    f"report: passage {doc_id!r} of question {query_id!r} is not the same text in all files; "
                    "give reviews of one collection"
                )
    return least[0]


def _gold(table: pa.Table, path: Path, positive_grade: int, gold_grade: int | None) -> np.ndarray:
    """(rows,) labels of a file; -1 where it says nothing of a passage. UserError where it says nothing at all."""
    least = positive_grade if gold_grade is None else gold_grade
    judged = judgements_of(read_pairs(path), least, own_labels=gold_grade is None)
    labels = {q: {j.doc_id: j.label for j in found} for q, found in judged.items()}
    pairs = zip(table["query_id"].to_pylist(), table["doc_id"].to_pylist(), strict=True)
    right = np.array([labels.get(q, {}).get(d, -1) for q, d in pairs])
    if (right < 0).all():
        raise UserError(f"gold={path}: it has no label of any passage that was judged; give labels of this collection")
    log.info("gold=%s: positive for %d of the %d judgements that it tells of", path, (right == 1).sum(), (right >= 0).sum())
    return right


def _others(rows: JudgedRows) -> np.ndarray:
    """(rows,) what most others said of the passage who saw no suggestion; -1 for none, or as many for either."""
    own = ~rows.shown
    size = int(rows.passage.max()) + 1
    positive, judged = (
        np.bincount(rows.passage, weights * own, size)[rows.passage] for weights in (rows.label, np.ones(len(own)))
    )
    positive, judged = positive - rows.label * own, judged - own
    return np.where(2 * positive > judged, 1, np.where(2 * positive < judged, 0, -1))


def _log(found: Mapping[str, Any]) -> None:
    people = [
        [p["who"], p["judgements"], p["median_seconds"], p["positive"], p["unsure"], p["suggestion_shown"]]
        for p in found["people"]
    ]
    columns = ("person", "judgements", "seconds", "positive", "unsure", "suggestion shown")
    log_table(log, f"{found['judgements']} judgements of {found['questions']} questions", columns, people)
    if len(found["guidelines"]) > 1:
        log.warning("The labels were made by %d guidelines: %s", len(found["guidelines"]), found["guidelines"])
    agreement = found["agreement"]
    if agreement is None:
        log.info("Agreement: no passage was judged by two people who saw no suggestion; people= and shared= make some")
    else:
        pairs = [
            [
                " and ".join(p["people"]),
                p["passages"],
                p["equal_labels"],
                p["kappa"],
                _interval(p, "kappa"),
                p["weighted_kappa"],
            ]
            for p in agreement["pairs"]
        ]
        every = ["all", agreement["passages"], agreement["equal_labels"], None, None, None]
        reliability = f"{_number(agreement['alpha'])} {_interval(agreement, 'alpha')}"
        log_table(
            log,
            f"Agreement without suggestions: Krippendorff's alpha {reliability}",
            ("people", "passages", "equal labels", "kappa", "95 %", "weighted kappa"),
            [*pairs, every],
        )
    for name, title in (("anchoring", "What suggestions do"), ("wrong_suggestions", "What wrong suggestions do")):
        if of := found[name]:
            values = [[words, of[key], _interval(of, key)] for key, words in WORDS.items() if key in of]
            number = f"{of['judgements_shown']} judgements with a suggestion, {of['judgements_hidden']} without"
            log_table(log, f"{title}: {number}", ("measure", "value", "95 %"), values)
            if min(of["judgements_shown"], of["judgements_hidden"]) < FEW:
                log.warning("%s: of fewer than %d judgements on either side little can be said", title, FEW)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _interval(of: Mapping[str, Any], name: str) -> str:
    bounds = of["intervals"].get(name)
    return "–" if bounds is None else "{:.3f} to {:.3f}".format(*bounds)
