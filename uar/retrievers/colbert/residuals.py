"""Vectors as the nearest of some centroids and what is left, a few bits a number (ColBERTv2, arXiv 2112.01488)."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from uar.errors import UserError

KINDS = ("fp16", "residual")
ITERATIONS = 4  # of k-means
EACH = 32  # vectors of the sample at least for each centroid
BLOCK = 1 << 16  # vectors that are compared with all centroids at a time


@dataclass(frozen=True)
class Form:
    """How an index keeps vectors and searches them. `index`: fp16, or residual with `bits` a number, 1, 2, 4 or 8.
    `centroids`: None is 16 times the root of the corpus' vectors, to the next lower power of 2. `candidates`: None compares a
    query with all passages; a number, with so many passages a query, or as many as are asked for: those that are best by the
    `probes` nearest centroids of each of its vectors, as they stand for their vectors."""

    index: str = "fp16"
    bits: int = 2
    centroids: int | None = None
    candidates: int | None = None
    probes: int = 4

    def check(self, dim: int) -> None:
        if self.index not in KINDS:
            raise UserError(f"retriever.index={self.index!r} is not known; allowed: {', '.join(KINDS)}")
        if self.bits not in (1, 2, 4, 8) or dim * self.bits % 8:
            raise UserError(f"retriever.bits={self.bits}: 1, 2, 4 or 8, of vectors that fill whole bytes (dim={dim})")
        given = [name for name in ("bits", "centroids", "candidates", "probes") if getattr(self, name) != getattr(Form, name)]
        if given and self.index != "residual":
            raise UserError(f"retriever.{given[0]} is of an index of centroids; set retriever.index=residual, or leave it out")
        if "probes" in given and self.candidates is None:
            raise UserError(f"retriever.probes={self.probes} is of candidates; set retriever.candidates too, or leave it out")
        for name in ("centroids", "candidates", "probes"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"retriever.{name}={getattr(self, name)}: a whole number from 1 on is needed")

    def facts(self) -> dict[str, Any]:
        """What changes the scores."""
        return asdict(self) if self.index == "residual" else {"index": self.index}


@dataclass(frozen=True)
class Residuals:
    """centroids: (centroids, dim) fp32 at length 1; cuts: (2^bits - 1) bounds between the values of a residual's number;
    values: (2^bits) what stands for each."""

    centroids: np.ndarray
    cuts: np.ndarray
    values: np.ndarray

    @property
    def bits(self) -> int:
        return int(len(self.values)).bit_length() - 1

    @classmethod
    def learn(cls, vectors: np.ndarray, passages_share: float, bits: int, centroids: int | None) -> "Residuals":
        """vectors: (some, dim) fp32, `passages_share` of the corpus'. The numbers of residuals fall into parts of one size."""
        import faiss  # after torch: both bring OpenMP

        wanted = centroids or 1 << int(np.log2(16 * (len(vectors) / passages_share) ** 0.5))
        number = min(wanted, max(1, len(vectors) // (1 if centroids else EACH)))
        means = faiss.Kmeans(vectors.shape[1], number, niter=ITERATIONS, seed=0, spherical=True, min_points_per_centroid=1)
        means.train(vectors)
        found = np.asarray(means.centroids, np.float32)
        held = vectors[:: max(1, len(vectors) // BLOCK)]
        left = (held - found[_nearest(held, found)]).ravel()
        parts = 1 << bits
        cuts, values = (np.quantile(left, (np.arange(n) + at) / parts) for n, at in ((parts - 1, 1), (parts, 0.5)))
        return cls(found, cuts.astype(np.float32), values.astype(np.float32))

    def encode(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of the nearest centroids, (vectors,) int32, and residuals, (vectors, dim · bits / 8) uint8."""
        nearest = _nearest(vectors, self.centroids)
        levels = np.searchsorted(self.cuts, vectors - self.centroids[nearest], side="left").astype(np.uint8)
        each = np.unpackbits(levels[..., None], axis=2)[..., 8 - self.bits :]
        return nearest.astype(np.int32), np.packbits(each.reshape(len(vectors), -1), axis=1)

    def decode(self, nearest: np.ndarray, packed: np.ndarray) -> np.ndarray:
        """(vectors, dim) fp32 at length 1."""
        each = np.unpackbits(packed, axis=1).reshape(len(packed), -1, self.bits)
        levels = (each << np.arange(self.bits - 1, -1, -1, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
        vectors: np.ndarray = self.centroids[nearest] + self.values[levels]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    blocks = np.array_split(vectors, max(1, -(-len(vectors) * len(centroids) // (BLOCK << 9))))
    return np.concatenate([np.argmax(block @ centroids.T, axis=1) for block in blocks])
