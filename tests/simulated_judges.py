"""Collections of which everything is known, and annotators that err so often, all drawn by a seed."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from uar.annotation.annotators import Judgement
from uar.collections import Collection, open_collection
from uar.labels import LabelContext
from uar.storage.ordering import best_first

POOL = 10
Truth = Mapping[str, Mapping[str, bool]]


def truth_of(queries: int, seed: int) -> dict[str, dict[str, bool]]:
    """Of each question ten passages, of which one to three are useful."""
    drawn = np.random.default_rng(seed)
    useful = {f"q{q}": drawn.permutation(POOL) < drawn.integers(1, 4) for q in range(queries)}
    return {q: {f"d{d}": bool(of[d]) for d in range(POOL)} for q, of in useful.items()}


def collection_of(folder: Path, truth: Truth, split: str = "train") -> Collection:
    """In which people judged all pairs."""
    (folder / "qrels").mkdir(parents=True)
    passages = [json.dumps({"_id": f"d{d}", "title": "", "text": f"passage number {d}"}) for d in range(POOL)]
    (folder / "corpus.jsonl").write_text("\n".join(passages))
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": q, "text": f"question {q}"}) for q in truth))
    pairs = [f"{q}\t{d}\t{int(yes)}" for q, of in truth.items() for d, yes in of.items()]
    (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(pairs))
    return open_collection(f"local:{folder}:{split}")


def context_of(collection: Collection) -> LabelContext:
    def pools(query_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {q: [f"d{d}" for d in range(POOL)] for q in query_ids}

    return LabelContext(collection, list(collection.queries), pools, dict, seed=0)


def selecting(truth: Truth, misses: float, wrong: float, seed: int) -> dict[str, list[Judgement]]:
    """Says yes or no: misses this share of what is useful, and takes this share of what is not."""
    drawn = np.random.default_rng(seed)
    found = {}
    for q, of in truth.items():
        said = {d: (drawn.random() >= misses) if yes else (drawn.random() < wrong) for d, yes in of.items()}
        order = sorted(said, key=lambda d: not said[d])
        found[q] = [Judgement(d, int(said[d]), int(said[d]), None, rank) for rank, d in enumerate(order, start=1)]
    return found


def scoring(truth: Truth, noise: float, seed: int, offset: float = 0.0) -> dict[str, list[Judgement]]:
    """Scores of mean 1 where useful and 0 where not, with normal noise, and an offset a question that says nothing; the best
    alone is positive."""
    drawn = np.random.default_rng(seed)
    found = {}
    for q, of in truth.items():
        own = drawn.normal(0, offset) if offset else 0.0
        scores = best_first((d, own + yes + drawn.normal(0, noise)) for d, yes in of.items())
        found[q] = [Judgement(d, int(rank == 1), int(rank == 1), s, rank) for rank, (d, s) in enumerate(scores, start=1)]
    return found


def values_of(truth: Truth, value: Callable[[str, str], float]) -> tuple[list[bool], list[float]]:
    """What is true of each pair, and a value of it."""
    pairs = [(q, d) for q, of in truth.items() for d in of]
    return [truth[q][d] for q, d in pairs], [value(q, d) for q, d in pairs]
