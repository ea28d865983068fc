"""Files of scores: a row a question and measure."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from uar.errors import DataError
from uar.storage.files import write_table

COLUMNS = ("query_id", "measure", "value")
Scores = list[tuple[str, str, float]]  # query id, measure, value
Values = Mapping[str, Mapping[str, float]]  # measure -> query id -> value


def write_score_file(path: Path, scores: Scores) -> None:
    columns = zip(COLUMNS, zip(*scores, strict=True), strict=True)
    write_table(path, pa.table({name: pa.array(values) for name, values in columns}))


def read_score_file(path: Path) -> Values:
    """DataError where it is no table of scores."""
    try:
        rows = pq.read_table(path, columns=list(COLUMNS)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(path, f"not a table of query_id, measure and value ({str(error).splitlines()[0]})") from error
    return by_measure((row["query_id"], row["measure"], row["value"]) for row in rows)


def by_measure(scores: Iterable[tuple[str, str, float]]) -> Values:
    values: dict[str, dict[str, float]] = {}
    for query_id, measure, value in scores:
        values.setdefault(measure, {})[query_id] = value
    return values
