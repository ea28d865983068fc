"""Negatives that are looked up again are searched as tests are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_bert

from uar.collections import Collection, open_collection
from uar.collections.token_ids import Tokens
from uar.expansion import ExpandedPool
from uar.labels import Example, Stage
from uar.launch.entry import composed
from uar.pools import DensePool, PoolSource
from uar.retrievers import dense
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.vector_index import ExactSearch
from uar.training.train_run import _miner


class Silent:
    """Writes nothing, as an expansion whose calls all failed."""

    writer, document_writer = None, None


@pytest.mark.parametrize("kind", ["dense", "expanded"])
def test_mining_takes_the_options_of_the_search_but_keeps_no_vectors(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    asked: list[tuple[Path, str, int]] = []
    encode = dense.encode_corpus

    def encoded(model: BiEncoder, texts: Tokens, place: Path, precision: str, processes: int, made: Mapping[str, Any]) -> list:
        asked.append((place, precision, processes))
        return encode(model, texts, place, precision, made=made)

    monkeypatch.setattr(dense, "encode_corpus", encoded)
    searched: list[ExactSearch] = []
    best = ExactSearch.best
    monkeypatch.setattr(ExactSearch, "best", lambda self, *given: searched.append(self) or best(self, *given))
    toy, model = open_collection(f"local:{folder}:test"), BiEncoder(tiny_bert(tmp_path / "model"))
    kept = tmp_path / "vectors"
    options = [f"search.embeddings={kept}", "search.precision=fp32", "search.processes=2", "search.quantize=int8"]
    source: PoolSource = DensePool(depth=3, retriever=lambda: model)
    if kind == "expanded":
        source = ExpandedPool(depth=3, retriever=lambda: model, expand=Silent())  # type: ignore[arg-type]
    stage = Stage("human", [_example(toy)], 1, "all", candidates=source)
    for given in (options, options, options[:3]):
        mine = _miner(composed("train", *given), toy, model)
        assert mine(stage, 0, tmp_path / "pools.jsonl").examples[0].negatives
    assert [(precision, processes) for _, precision, processes in asked] == [
        ("fp32", 2)
    ] * 2  # the same ones are not asked again
    assert not kept.exists() and not any(place.is_relative_to(kept) for place, *_ in asked)
    assert [search.quantize for search in searched] == ["int8", None]


def _example(toy: Collection) -> Example:
    return Example("q1", tuple(toy.positives("q1")), (), "human")
