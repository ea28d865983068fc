"""A run that is done has its weights once, in its model, and is resumed from there."""

import csv
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, metrics, ok
from hydra.utils import instantiate

from uar.errors import UserError
from uar.launch.entry import composed
from uar.storage.files import read_json, write_json
from uar.training.exported import ALIKE, check_restored, drop_checkpoints, is_done, restore
from uar.training.lent import IDENTITY, borrow

Command = Callable[..., subprocess.CompletedProcess[str]]
VECTORS = np.array([[3.0, 4.0], [0.0, 2.0]])


def checkpoints(run: Path) -> list[str]:
    return sorted(path.parent.name for path in (run / "checkpoints").rglob("*.ckpt"))


def steps_logged(run: Path) -> list[dict[str, float]]:
    """What training wrote into the CSV."""
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in rows if "stage" in row]


def test_a_run_that_is_done_is_resumed_from_its_model(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["label_source=mixed", "human_frac=0.5", *SMALL, "rag=off", "logger=csv", "trainer.precision=fp32"]
    options += ["trainer.max_steps=2", "trainer.log_every_n_steps=1"]
    ok(command("train", *options, f"hydra.run.dir={run}"))
    assert checkpoints(run) == [] and is_done(run / "checkpoints")
    first, logged = metrics(run), steps_logged(run)
    assert {row["stage"] for row in logged} == {0, 1}
    exported = {path: path.stat().st_mtime_ns for path in (run / "model").rglob("*.safetensors")}
    more = [option for option in options if not option.startswith("dataset.test")]
    said = ok(command("train", *more, "dataset.test=[mini:test,mini:ood]", "resume=true", f"hydra.run.dir={run}"))
    for stage in ("llm", "human"):
        assert f"Stage {stage} was finished before and is loaded" in said
    assert "mini.test: 56 questions, a run that stood in this folder" in said  # of the same weights
    again = metrics(run)
    assert again["train"] == first["train"] and again["retrieval"]["mini.test"] == first["retrieval"]["mini.test"]
    assert set(again["retrieval"]) == {"mini.test", "mini.ood"} and steps_logged(run) == logged
    assert {path: path.stat().st_mtime_ns for path in (run / "model").rglob("*.safetensors")} == exported
    assert checkpoints(run) == []


def test_checkpoints_that_are_wanted_stay(command: Command, tmp_path: Path) -> None:
    """They hold what learns: of adapters over weights in bf16, the adapters."""
    quick = ["label_source=human", *SMALL, "rag=off", "logger=none", "trainer.max_steps=1", "dataset.test=[]"]
    quick += ["retriever.lora_rank=2", "retriever.dtype=bf16"]
    ok(command("train", *quick, "training.keep_checkpoints=true", "hydra.run.dir=run"))
    place = tmp_path / "run" / "checkpoints" / "0-human"
    assert {"best.ckpt", "last.ckpt", "done.json"} <= {path.name for path in place.iterdir()}
    for name in ("best.ckpt", "last.ckpt"):
        kept = torch.load(place / name, weights_only=False)["state_dict"]
        assert kept and all(".lora_" in weight and value.dtype == torch.float32 for weight, value in kept.items())
    assert not is_done(tmp_path / "run" / "checkpoints")
    ok(command("train", *quick, "resume=true", "hydra.run.dir=run"))  # which no longer wants them
    assert checkpoints(tmp_path / "run") == []


def test_a_model_that_another_run_trained_is_taken_and_scored(command: Command, tmp_path: Path, tiny: list[str]) -> None:
    options = [
        "label_source=mixed",
        "human_frac=0.5",
        *SMALL,
        *tiny,
        "rag=off",
        "logger=none",
        "trainer.max_steps=2",
        "baselines=[]",
    ]
    first, second, other = (tmp_path / "outputs" / name for name in ("a", "b", "c"))
    ok(command("train", *options, f"hydra.run.dir={first}", "trained_by=outputs/*"))
    taking = [*(o for o in options if not o.startswith("dataset.test")), "dataset.test=[mini:ood]", "trained_by=outputs/*"]
    said = ok(command("train", *taking, f"hydra.run.dir={second}"))
    assert "The model is that of outputs/a" in said and "from step" not in said
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (first, second)]
    assert weights[0] == weights[1] and metrics(first)["train"] == metrics(second)["train"]
    assert list(metrics(second)["retrieval"]) == ["mini.ood"] and is_done(second / "checkpoints")
    said = ok(command("train", *taking, "seed=1", f"hydra.run.dir={other}"))
    assert "from step 0" in said and "The model is that of" not in said
    assert "was finished before" in ok(command("train", *taking, "resume=true", f"hydra.run.dir={second}"))
    manifest = read_json(first / "manifest.json")
    for made in (manifest | {"git_commit": "another"}, manifest):  # of which the second is taken
        write_json(first / "manifest.json", made)
        shutil.rmtree(second)
        (second / "checkpoints").mkdir(parents=True)
        shutil.copy(first / IDENTITY, second / IDENTITY)
        assert borrow(str(first), second) == (made == manifest)


@pytest.mark.parametrize("options", [[], ["retriever.tied=false"], ["retriever.lora_rank=2"], ["retriever.learn_scale=true"]])
def test_the_model_gives_back_the_vectors_that_were_trained(tmp_path: Path, options: list[str]) -> None:
    cfg = composed("train", "retriever.layers=1", *options)
    trained, fresh = (instantiate(cfg.retriever, _convert_="all") for _ in range(2))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if weight.requires_grad and "scale" not in name:
                weight.add_(0.02 * torch.randn_like(weight))
    trained.save(tmp_path / "model")
    restore(cfg, tmp_path / "model", fresh)
    texts = [np.array([101, 2003, 2023, 102]), np.array([101, 2054, 102])]
    for role in ("query", "passage"):
        expected, found = (model.eval()(texts, role=role) for model in (trained, fresh))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # fp32; LoRA is merged


def test_a_model_folder_that_is_gone_or_another_one_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    (place / "0-llm").mkdir(parents=True)
    for name in ("best.ckpt", ".last.ckpt.0123456789ab"):
        (place / "0-llm" / name).touch()
    drop_checkpoints(place, VECTORS)
    assert is_done(place) and list((place / "0-llm").iterdir()) == []
    check_restored(place, VECTORS * (1 + 1e-3))
    turned = VECTORS @ np.array([[1, 0.1], [-0.1, 1]])
    assert (turned * VECTORS).sum() / np.linalg.norm(turned) / np.linalg.norm(VECTORS) < ALIKE
    for other in (turned, VECTORS[:1], VECTORS[:, :1]):
        with pytest.raises(UserError, match="is not the model that was trained there"):
            check_restored(place, other)
    with pytest.raises(UserError, match="its model/ is gone"):
        restore(composed("train"), tmp_path / "model", None)  # type: ignore[arg-type]
