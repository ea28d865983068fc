"""A file of judgements as arrays."""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class JudgedRows:
    """Arrays of (rows,), a row a passage and person. `query`, `person`: places in `query_ids` and `people`; `passage`: the
    same number for the same question and passage. `suggestion`: the LLM's label, -1 for none. NaN: not known."""

    query_ids: list[str]
    people: list[str]
    query: np.ndarray
    passage: np.ndarray
    person: np.ndarray
    label: np.ndarray
    grade: np.ndarray
    shown: np.ndarray
    suggestion: np.ndarray
    seconds: np.ndarray
    confidence: np.ndarray

    def of(self, mask: np.ndarray) -> "JudgedRows":
        """Some of the rows; names keep their places."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return JudgedRows(**{n: v[mask] if isinstance(v, np.ndarray) else v for n, v in own.items()})


def judged_rows(table: pa.Table, positive_grade: int) -> JudgedRows:
    """Of a table with the columns of a file of judgements. Labels are made of the grades."""
    query_ids, query = _places(table["query_id"])
    people, person = _places(table["who"])
    _, doc = _places(table["doc_id"])
    _, passage = np.unique(np.stack([query, doc]), axis=1, return_inverse=True)
    grade = _numbers(table["grade"]).astype(np.int64)
    return JudgedRows(
        query_ids=query_ids,
        people=people,
        query=query,
        passage=passage.ravel(),
        person=person,
        label=(grade >= positive_grade).astype(np.int64),
        grade=grade,
        shown=np.array(table["suggestion_shown"].fill_null(False).to_pylist(), bool),
        suggestion=np.nan_to_num(_numbers(table["suggestion"]), nan=-1).astype(np.int64),
        seconds=_numbers(table["seconds"]),
        confidence=_numbers(table["confidence"]),
    )


def _places(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy()
