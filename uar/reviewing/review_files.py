"""What people said as files in the folder of the review: every judgement, and one label a passage."""

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from statistics import median_low
from typing import Any

import pyarrow as pa

from uar.reviewing.label_database import CURRENT, LabelDatabase
from uar.reviewing.labelling import Labelling
from uar.storage import judgement_files, label_files
from uar.storage.files import write_table
from uar.storage.qrels import write_qrels

log = logging.getLogger(__name__)
ASSISTED = pa.field(label_files.ASSISTED, pa.bool_())


def write_files(labelling: Labelling, folder: Path) -> int:
    """`judgements.parquet`, a row a passage and person; `labels.parquet`, a row a passage, with a column `assisted`; and
    `labels.qrels`, the labels of it that rest on no judgement made with a suggestion in sight, since qrels are taken for
    people's own. Returns the number of judgements; before the first nothing is written."""
    manner, collection = labelling.manner, labelling.collection
    entries = labelling.database.count(judgement_files.ENTRIES)  # what comes in from now on may be missing
    rows = list(judgement_rows(labelling))
    if not rows and not (folder / judgement_files.NAME).is_file():
        return 0
    about = {
        "positive_grade": manner.positive_grade,
        "grades": {str(grade): meaning for grade, meaning in manner.scale},
        "collection": collection.slug,
        "entries": entries,
    }
    judgement_files.write_judgements(folder / judgement_files.NAME, rows, about)
    joined = [
        _joined(list(of_pair), manner.positive_grade) for _, of_pair in groupby(rows, lambda r: (r["query_id"], r["doc_id"]))
    ]
    schema = label_files.SCHEMA.append(ASSISTED)
    write_table(folder / label_files.NAME, pa.Table.from_pylist(joined, schema))
    own = [row for row in joined if not row[label_files.ASSISTED]]
    write_qrels(folder / "labels.qrels", ((row["query_id"], row["doc_id"], row["grade"]) for row in own))
    return len(rows)


def judgement_rows(labelling: Labelling) -> Iterator[dict[str, Any]]:
    """The judgements as they are now, by question and passage, with the columns of a file of judgements, and the id of each,
    `judgement`."""
    database: LabelDatabase = labelling.database
    corpus, least = labelling.collection.corpus, labelling.manner.positive_grade
    found = database.look(
        f"""with current as ({CURRENT}) select query_id, doc_id, texts, current.*, passages.label as suggestion,
        passages.grade as suggestion_grade from current join items using (item) join passages using (item, place)
        order by item, place, current.time, who"""
    )
    for row in found:
        words = None
        if row["start"] is not None:
            words = corpus.parts(row["doc_id"])[1][row["start"] : row["end"]]
        yield {
            **{
                n: row[n] for n in ("query_id", "doc_id", "who", "seconds", "confidence", "start", "end", "guideline", "texts")
            },
            "judgement": row["id"],
            "grade": row["grade"],
            "label": int(row["grade"] >= least),
            "time": datetime.fromtimestamp(row["time"], UTC),
            "suggestion_shown": bool(row["shown"]),
            "suggestion": row["suggestion"],
            "suggestion_grade": row["suggestion_grade"],
            "words": words or None,
        }


def _joined(rows: list[Mapping[str, Any]], positive_grade: int) -> dict[str, Any]:
    """One label of a passage: the middle grade, the lower one of two, of those who saw no suggestion where there are any."""
    own = [row for row in rows if not row["suggestion_shown"]]
    grade = median_low(row["grade"] for row in own or rows)
    label = int(grade >= positive_grade)
    doubt = sum(row["label"] != label for row in own or rows) / len(own or rows)
    return {
        "query_id": rows[0]["query_id"],
        "doc_id": rows[0]["doc_id"],
        "label": label,
        "grade": grade,
        "uncertainty": doubt,
        "source": "human",
        label_files.ASSISTED: not own,
    }
