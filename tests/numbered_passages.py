"""Passages without a corpus: ids by their row."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


class NumberedPassages(dict[str, int]):
    hash = "numbered"

    def rows(self, doc_ids: Sequence[str]) -> list[int]:
        return [self[d] for d in doc_ids]

    def ids_at(self, rows: np.ndarray) -> list[str]:
        ids = {row: d for d, row in self.items()}
        return [ids[int(row)] for row in rows]

    def id_column(self, rows: np.ndarray) -> pa.Array:
        return pa.array(self.ids_at(rows), pa.string())
