"""Queries that a file names."""

from dataclasses import dataclass
from pathlib import Path

from uar.acquisition.acquisition import Acquisition, AcquisitionContext
from uar.errors import DataError
from uar.storage.lines import read_id, read_jsonl


@dataclass(frozen=True)
class ListedAcquisition(Acquisition):
    """Those of `path` (lines of `query_id`) first, in its order, then the others at random. DataError where it names none of
    the queries."""

    path: str

    def order(self, context: AcquisitionContext) -> list[str]:
        path = Path(self.path)
        if not path.is_file():
            raise DataError(path, 'no such file; give lines such as {"query_id": "q1"}')
        listed = [read_id(path, number, row, "query_id") for number, row in read_jsonl(path)]
        known = set(context.query_ids)
        if not known & set(listed):
            raise DataError(path, f"none of its {len(listed)} queries is among the {len(known)} to choose from")
        left = dict.fromkeys(context.drawn)
        return list(dict.fromkeys([*(q for q in listed if q in left), *left]))
