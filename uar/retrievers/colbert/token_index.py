"""An index of a vector a token: shards in a folder, in fp16 or as residuals of centroids, searched one at a time."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uar.collections.token_ids import Tokens
from uar.machine.precision import resolve_dtype
from uar.retrievers.colbert.residuals import Form, Residuals
from uar.retrievers.encode import encode_rows
from uar.retrievers.shard_folder import by_length, encoding, filling, rows_of_shard
from uar.retrievers.trainable import Encoder
from uar.retrievers.vector_shards import load_shard
from uar.storage.files import write_array

log = logging.getLogger(__name__)
SHARD = 2_048  # passages
AT_ONCE = 128  # passages whose padded vectors are held
SAMPLE = 1 << 18  # vectors that centroids are learnt from, at most
FILES = {"fp16": ("vectors", "ends"), "residual": ("codes", "residuals", "passages", "starts", "ends")}  # of a shard, by index
CENTROIDS = ("centroids", "cuts", "values")  # files that all shards of a residual index need
Flat = tuple[np.ndarray, np.ndarray]  # (vectors, dim) fp32, and (passages + 1) where those of each passage begin


def made_by(encoder: Encoder, tokens: Tokens, form: Form, precision: str) -> dict[str, Any]:
    """All that makes an index; it reads every weight."""
    dtype = str(resolve_dtype(precision)).removeprefix("torch.")
    index = {name: value for name, value in form.facts().items() if name not in ("candidates", "probes")}
    return {"weights": encoder.weights_key(), "texts": tokens.key, "precision": dtype, "shard": SHARD, **index}


def flat_vectors(encoder: Encoder, tokens: Tokens, rows: np.ndarray, precision: str, role: str = "passage") -> Flat:
    """Of some texts, behind each other in the order of `rows`."""
    each: list[np.ndarray] = [np.zeros((0, encoder.dim), np.float32)] * len(rows)
    for places in by_length(tokens.lengths(rows), AT_ONCE):
        found = encode_rows(encoder, tokens, [int(row) for row in rows[places]], precision, role)
        for place, vectors in zip(places, found, strict=True):
            each[place] = vectors[vectors[:, -1] > 0, :-1]
    return np.concatenate(each), np.cumsum([0, *map(len, each)])


def of_places(ends: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the vectors of some passages stand among those of all, and where those of each begin behind each other."""
    sizes = ends[places + 1] - ends[places]
    begins = np.cumsum([0, *sizes])
    return np.repeat(ends[places] - begins[:-1], sizes) + np.arange(begins[-1]), begins


class TokenIndex:
    """Of the passages of `tokens`, in a folder; what is missing there is made. UserError where it is one of another model."""

    def __init__(
        self, encoder: Encoder, tokens: Tokens, form: Form, precision: str, folder: Path, made: Mapping[str, Any]
    ) -> None:
        self._folder, self._form, self._passages = folder, form, len(tokens)
        self.numbers = range(-(-len(tokens) // SHARD))
        shared = [self._centroid_file(name) for name in CENTROIDS] if form.index == "residual" else []
        shards = [[*shared, *(self._file(number, name) for name in FILES[form.index])] for number in self.numbers]
        with filling(folder, made, shards, "Indexing") as missing:
            self._residuals = self._learnt(encoder, tokens, precision) if form.index == "residual" else None
            with encoding(sum(len(self.rows(number)) for number in missing), "Indexed") as shown:
                for number in missing:
                    self._write(number, *flat_vectors(encoder, tokens, self.rows(number), precision))
                    shown.advance(len(self.rows(number)))

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self._folder.glob("*.npy"))

    @property
    def centroids(self) -> np.ndarray:
        """(centroids, dim) fp32; none of an index in fp16."""
        return self._residuals.centroids if self._residuals else np.zeros((0, 0), np.float32)

    def rows(self, number: int) -> np.ndarray:
        """Corpus rows of a shard."""
        return rows_of_shard(number, SHARD, self._passages)

    def vectors(self, number: int, places: np.ndarray | None = None) -> Flat:
        """Of the passages at some places of a shard, or of all of it."""
        ends = load_shard(self._file(number, "ends"))
        at: Any = slice(None)
        if places is not None:
            at, ends = of_places(ends, places)
        if self._residuals is None:
            return load_shard(self._file(number, "vectors"), mapped=True)[at].astype(np.float32), ends
        codes, packed = (load_shard(self._file(number, name), mapped=True)[at] for name in ("codes", "residuals"))
        return self._residuals.decode(codes, packed), ends

    def lists(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of a shard's passages by centroid, and (centroids + 1) where those of each centroid begin."""
        return load_shard(self._file(number, "passages")), load_shard(self._file(number, "starts"))

    def _file(self, number: int, name: str) -> Path:
        return self._folder / f"shard-{number:05d}-{name}.npy"

    def _centroid_file(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def _write(self, number: int, vectors: np.ndarray, ends: np.ndarray) -> None:
        arrays: list[np.ndarray] = [vectors.astype(np.float16)]
        if self._residuals is not None:
            codes, packed = self._residuals.encode(vectors)
            order = np.argsort(codes, kind="stable")
            owner = np.repeat(np.arange(len(ends) - 1, dtype=np.int32), np.diff(ends))[order]
            starts = np.searchsorted(codes[order], np.arange(len(self.centroids) + 1))
            arrays = [codes, packed, owner, starts]
        for name, array in zip(FILES[self._form.index], [*arrays, ends], strict=True):
            write_array(self._file(number, name), array)

    def _learnt(self, encoder: Encoder, tokens: Tokens, precision: str) -> Residuals:
        files = {name: self._centroid_file(name) for name in CENTROIDS}
        if not all(path.is_file() for path in files.values()):
            for shard in self._folder.glob("shard-*"):  # of other centroids
                shard.unlink()
            every = int(tokens.lengths().sum())
            rows = np.arange(0, len(tokens), max(1, -(-every // SAMPLE)))
            vectors, _ = flat_vectors(encoder, tokens, rows, precision)
            learnt = Residuals.learn(vectors, len(rows) / len(tokens), self._form.bits, self._form.centroids)
            for name, path in files.items():
                write_array(path, getattr(learnt, name))
            log.info("%d centroids of %d vectors of %d passages", len(learnt.centroids), len(vectors), len(rows))
        return Residuals(**{name: load_shard(path) for name, path in files.items()})
