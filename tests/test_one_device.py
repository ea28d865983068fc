"""A retriever and an LLM in one process: which of them is on the device at what time."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from conftest import metrics
from omegaconf import OmegaConf
from scripted import Scripted
from test_evaluator import SETTINGS
from tiny_models import tiny_bert
from torch import nn

from uar.collections import Collection, open_collection
from uar.evaluation.evaluator import Evaluator
from uar.launch.entry import composed
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.training.train_run import train

happened: list[str] = []
left: dict[str, int] = {}  # of a training, when the LLM opens


class Reader(Scripted):
    def __init__(self, model: str) -> None:
        super().__init__(lambda request: "heart")
        happened.append("LLM opened")
        gc.collect()
        things = gc.get_objects()
        left["optimizers"] = sum(issubclass(type(thing), torch.optim.Optimizer) for thing in things)
        left["gradients"] = sum(type(thing) is nn.Parameter and thing.grad is not None for thing in things)

    def close(self) -> None:
        happened.append("LLM closed")


class Watched(BiEncoder):
    def to(self, *args: Any, **kwargs: Any) -> "Watched":
        happened.append("retriever moved")
        return super().to(*args, **kwargs)

    def forward(self, texts: Sequence[np.ndarray], role: str = "passage", cached: bool = False) -> torch.Tensor:
        happened.append(f"{role} encoded")
        return super().forward(texts, role, cached)


def two_collections(folder: Path) -> list[Collection]:
    more = folder.parent / "more"
    copytree(folder, more)
    corpus = more / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("Bees", "Some bees"))
    found = [open_collection(f"local:{place}:test") for place in (folder, more)]
    assert len({collection.corpus.hash for collection in found}) == 2
    return [found[0], replace(found[1], slug="more.test")]


@pytest.mark.parametrize("rewrite", ["null", "llm"])
def test_corpora_are_encoded_before_an_llm_opens_and_the_retriever_makes_way(folder: Path, tmp_path: Path, rewrite: str):
    happened.clear()
    rag = composed("evaluate", "retriever=bm25", "rag=default", f"rag.rewrite={rewrite}").rag
    rag.llm = {"_target_": f"{__name__}.Reader", "model": "reader"}
    search = {"_target_": "uar.retrievers.vector_index.ExactSearch"}
    cfg = OmegaConf.create({**SETTINGS, "rag": rag, "search": search, "store": str(tmp_path / "store")})
    ranker = Watched(tiny_bert(tmp_path / "model"))
    found = Evaluator(cfg, tmp_path / "run").evaluate(two_collections(folder), ranker)
    assert set(found["toy.test"]) == set(found["more.test"]) == {"RR@10", "EM", "F1"}
    assert set(metrics(tmp_path / "run")["rag"]) == set(found)
    opened = happened.index("LLM opened")
    each = ["passage encoded", "query encoded"]
    assert happened[: 1 + 2 * len(each)] == ["retriever moved", *each, *each]
    if rewrite == "llm":  # it goes on searching
        assert happened[opened - 1] == "query encoded" and set(happened[opened + 1 : -2]) == {"query encoded"}
        assert happened[-2:] == ["LLM closed", "retriever moved"]
    else:
        assert happened[1 + 2 * len(each) :] == ["retriever moved", "LLM opened", "LLM closed"]


def test_of_a_training_nothing_but_the_model_is_left_when_an_llm_opens(folder: Path, tmp_path: Path):
    left.clear()
    given = [f"dataset.path={folder}", "dataset.train=test", "dataset.dev=null", "dataset.test=[test]"]
    short = ["trainer=cpu", "trainer.max_steps=1", "baselines=[]", "logger=none", f"store={tmp_path / 'store'}"]
    model = f"retriever.model={tiny_bert(tmp_path / 'model')}"
    cfg = composed("train", "dataset=local", *given, "label_source=human", "rag=default", model, *short)
    cfg.rag.llm = {"_target_": f"{__name__}.Reader", "model": "reader"}
    train(cfg, tmp_path / "run")
    assert left == {"optimizers": 0, "gradients": 0}
