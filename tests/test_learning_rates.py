"""The learning rate that a training takes where none is given."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import SMALL, ok
from tiny_models import MINILM, tiny_bert, tiny_mlm

from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.colbert.colbert_encoder import ColBERT
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.retrievers.splade.splade_encoder import Splade
from uar.retrievers.trainable import Trainable

KINDS = {BiEncoder: 5e-5, ColBERT: 1e-4, CrossEncoder: 1e-4, Splade: 5e-5}  # from a pretrained model


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_trained_retriever_takes_smaller_steps_than_a_pretrained_model(kind: type[Trainable], tmp_path: Path):
    given = (tiny_mlm if kind is Splade else tiny_bert)(tmp_path / "pretrained")
    pretrained = kind(given)
    pretrained.save(tmp_path / "trained")
    found = [pretrained, kind(str(tmp_path / "trained")), kind(str(tmp_path / "trained"), layers=1)]
    assert [one.learning_rate for one in found] == [KINDS[kind], 1e-5, 5e-5]


def test_minilm_is_fit_its_first_layers_are_not_and_adapters_are_new():
    rates = [BiEncoder(MINILM, **more).learning_rate for more in ({}, {"layers": 3}, {"lora_rank": 2})]
    assert rates == [1e-5, 5e-5, 1e-4]


@pytest.mark.parametrize(
    ("given", "rate"), [([], 5e-5), (["training.learning_rate=0.001"], 1e-3), (["training.optimizer.lr=0.001"], 5e-5)]
)
def test_a_run_keeps_the_rate_that_it_took(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, tiny: list[str], given: list[str], rate: float
):
    quick = [*SMALL, *tiny, *given, "rag=off", "logger=none", "dataset.dev=null", "dataset.test=[]", "trainer.max_steps=1"]
    said = ok(command("train", *quick, "hydra.run.dir=run"))
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["learning_rate"] == rate
    assert ("training.learning_rate=5e-05, as suits " in said) == (not given)


def test_jobs_of_several_processes_take_it_too(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, tiny: list[str]
):
    quick = [*SMALL, *tiny, "trainer=ddp_cpu", "training.batch_size=2", "rag=off", "logger=none", "dataset.dev=null"]
    ok(command("train", "-m", "label_source=human", *quick, "dataset.test=[]", "trainer.max_steps=1", "hydra.sweep.dir=sweep"))
    (config,) = (tmp_path / "sweep").rglob("config.yaml")
    training = yaml.safe_load(config.read_text())["training"]
    assert [training["learning_rate"], training["optimizer"]["lr"]] == [5e-5, 5e-5]
