"""What Lightning is told of steps: cut gradients, decay, checkpoints between steps, precision, SLURM."""

import math
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import OmegaConf
from torch import nn

from uar.errors import UserError
from uar.launch.entry import composed
from uar.losses import contrastive
from uar.training import opened, trainer
from uar.training.callbacks import Best, Latest, StepSeed, Stopwatch, WholeCheckpoints
from uar.training.identity import schedule_hash
from uar.training.module import RetrieverModule
from uar.training.optimizer import fused, parameter_groups
from uar.training.processes import requeued
from uar.training.schedules import Schedule, constant, cosine, linear


class Slope(L.LightningModule):
    """The gradient of each step is (3, 4), whose norm is 5."""

    configure_gradient_clipping = RetrieverModule.configure_gradient_clipping

    def __init__(self, precision: str = "fp32") -> None:
        super().__init__()
        self.weight, self.precision = nn.Parameter(torch.zeros(2)), precision
        self.gradients: list[list[float]] = []
        self.random: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.random.append(float(torch.rand(1)))
        return (self.weight * torch.tensor([3.0, 4.0])).sum()

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        if self.weight.grad is not None:
            self.gradients.append(self.weight.grad.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return fused(partial(torch.optim.AdamW, lr=1.0), self.precision)(self.parameters())


def fit(module: Slope, folder: Path, batches: int = 2, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    made = L.Trainer(default_root_dir=folder, max_epochs=1, accelerator="cpu", **quiet, **options)
    made.fit(module, torch.utils.data.DataLoader(torch.zeros(batches)))
    return made


@pytest.mark.parametrize(("algorithm", "expected"), [(None, [0.6, 0.8]), ("norm", [0.6, 0.8]), ("value", [1.0, 1.0])])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_cut_with_the_fused_optimizer_in_any_precision(
    tmp_path: Path, precision: str, algorithm: str | None, expected: list[float]
):
    module = Slope(precision)
    names = {"precision": trainer.PRECISIONS[precision], "gradient_clip_algorithm": algorithm}
    made = fit(module, tmp_path, gradient_clip_val=1.0, **names)
    assert made.optimizers[0].defaults["fused"]
    assert module.gradients[0] == pytest.approx(expected, abs=1e-6)


def test_an_optimizer_is_fused_where_gradients_have_no_scale():
    adam = partial(torch.optim.AdamW, lr=1.0)
    assert [bool(fused(adam, p).keywords.get("fused")) for p in ("fp32", "bf16", "fp16")] == [True, True, False]
    assert "fused" not in fused(partial(torch.optim.SGD, lr=1.0), "fp32").keywords


def rates(schedule: Schedule, warmup: float, steps: int) -> list[float]:
    """What a stage of so many steps multiplies its learning rate by."""
    optimizer = partial(torch.optim.SGD, lr=1.0)
    module = RetrieverModule(nn.Linear(2, 2), contrastive, optimizer, warmup, "llm", schedule=schedule)  # type: ignore[arg-type]
    module.trainer = SimpleNamespace(estimated_stepping_batches=steps)  # type: ignore[assignment]
    made = module.configure_optimizers()
    found = []
    for _ in range(steps):
        found.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return found


def test_schedules_rise_alike_and_fall_each_in_its_way():
    assert rates(linear, 0.2, 10) == [0.5, 1.0, *[(10 - step) / 8 for step in range(2, 10)]]
    assert rates(constant, 0.2, 10) == [0.5] + [1.0] * 9
    half = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert rates(cosine, 0.2, 10) == pytest.approx([0.5, 1.0, *half])
    assert rates(partial(cosine, least=0.1), 0.0, 9) == pytest.approx([1.0, *[0.1 + 0.9 * x for x in half]])
    assert cosine(99, 1, 10) == 0.0 == linear(99, 1, 10) and constant(99, 1, 10) == 1.0


def test_the_schedule_is_chosen_by_name_and_is_part_of_a_run():
    default, other = composed("train"), composed("train", "training.scheduler._target_=uar.training.schedules.cosine")
    assert [instantiate(cfg.training.scheduler).func for cfg in (default, other)] == [linear, cosine]
    plain = [OmegaConf.to_container(cfg.training, resolve=True) for cfg in (default, other)]
    assert schedule_hash([], plain[0]) != schedule_hash([], plain[1])


def test_matrices_alone_are_decayed():
    parts = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    parts.scale = nn.Parameter(torch.tensor(1.0))
    parameters = list(parts.parameters())
    made = partial(torch.optim.AdamW, lr=1.0, weight_decay=0.5)
    groups = made(parameter_groups(parameters, made)).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.5), (4, 0.0)]
    assert parameter_groups(parameters, partial(torch.optim.SGD, lr=1.0)) == parameters


def test_a_checkpoint_between_batches_of_one_step_is_not_kept(tmp_path: Path):
    kept: list[int] = []

    class Noted(Latest):
        def on_train_epoch_end(self, *_: Any) -> None: ...

    class Trainer(L.Trainer):
        def save_checkpoint(self, *_: Any, **__: Any) -> None:
            kept.append(self.fit_loop.epoch_loop.batch_idx)

    made = Trainer(
        max_epochs=1, accelerator="cpu", accumulate_grad_batches=3, callbacks=[Noted(tmp_path / "x", 1)], logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    made.fit(Slope(), torch.utils.data.DataLoader(torch.zeros(8)))
    assert kept == [2, 5]


@pytest.mark.parametrize("ends", [ValueError("the loss is not a number"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_ends_a_training_is_told_and_not_that_its_checkpoint_failed_too(
    ends: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Ending(Slope):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            if batch_idx:
                raise ends
            return super().training_step(batch, batch_idx)

    def breaks(*_: object) -> None:
        raise OSError("no more space")

    monkeypatch.setattr("uar.training.callbacks._write", breaks)
    latest = Latest(tmp_path / "last.ckpt", 1)
    with pytest.raises(type(ends) if isinstance(ends, ValueError) else SystemExit, match=str(ends) or "1"):
        fit(Ending(), tmp_path, 3, callbacks=[latest], plugins=[WholeCheckpoints()])
    assert "The newest checkpoint was not written: no more space" in caplog.text


def test_batches_of_one_step_have_their_own_random_numbers(tmp_path: Path):
    for together, differing in ((1, 4), (2, 4)):
        module = Slope()
        fit(module, tmp_path, 4, accumulate_grad_batches=together, callbacks=[StepSeed(0, "llm")])
        assert len(set(module.random)) == differing


def test_the_best_score_is_known_in_a_folder_that_was_moved(tmp_path: Path):
    there = Best(tmp_path / "old", "best", monitor="dev/nDCG@10", mode="max")
    there.best_model_score, there.best_model_path = torch.tensor(0.75), str(tmp_path / "old" / "best.ckpt")
    there.best_k_models = {there.best_model_path: there.best_model_score}
    there.kth_best_model_path, there.kth_value = there.best_model_path, there.best_model_score
    here = Best(tmp_path / "new", "best", monitor="dev/nDCG@10", mode="max")
    here.load_state_dict(there.state_dict())
    assert here.best_model_score == 0.75 and list(here.best_k_models) == [str(tmp_path / "new" / "best.ckpt")]
    assert here.best_model_path == here.kth_best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert here.last_model_path == ""


def test_seconds_before_a_kill_count():
    clock = Stopwatch()
    clock.load_state_dict({"seconds": 1000.0})
    assert clock.seconds >= 1000 and math.isclose(clock.state_dict()["seconds"], clock.seconds, abs_tol=60)


def test_precision_is_settled_by_what_is_trained_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainer, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(trainer, "bf16_is_fast", lambda on: on == "cuda")
    found = {name: trainer.precision_of(composed("train", f"trainer={name}").trainer) for name in ("cpu", "gpu", "auto")}
    assert found == {"cpu": "fp32", "gpu": "bf16", "auto": "bf16"}
    assert trainer.precision_of(composed("train", "trainer.precision=16-mixed").trainer) == "16-mixed"
    names = {"bf16-true": "bf16", "16-mixed": "fp16", "fp16": "fp16", "32-true": "fp32", "64": "fp32"}
    assert {name: trainer.scoring_precision(name) for name in names} == names


def test_a_gpu_waits_less_often(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(trainer, "device", lambda: torch.device("cuda"))
    for name, steps in (("cpu", [1, 200]), ("gpu", [50, 2_000])):
        cfg = composed("train", f"trainer={name}").trainer
        assert [trainer.often(None, cfg, *each) for each in (trainer.LOGGED, trainer.KEPT)] == steps
        assert trainer.often(7, cfg, *trainer.KEPT) == 7
    made = [trainer.make_trainer(composed("train", *options), [], tmp_path) for options in (
        ["trainer=cpu"], ["trainer=cpu", "trainer.log_every_n_steps=3"], ["trainer=ddp_cpu"],
        ["trainer=ddp_cpu", "+trainer.accumulate_grad_batches=2"],
    )]  # fmt: skip
    assert [one.log_every_n_steps for one in made] == [1, 3, 1, 1]
    for one, static in zip(made[2:], (True, False), strict=True):
        assert isinstance(one.strategy, DDPStrategy)
        assert one.strategy._ddp_kwargs.items() >= {"gradient_as_bucket_view": True, "static_graph": static}.items()


def test_a_loss_that_is_no_number_is_told_when_steps_are_logged_and_before_anything_is_kept():
    module = RetrieverModule(nn.Linear(2, 2), contrastive, partial(torch.optim.SGD, lr=1.0), 0.0, "llm")  # type: ignore[arg-type]
    module._stop_where_broken()
    for step, loss in enumerate([0.5, math.nan, 0.5, math.inf]):
        module.trainer = SimpleNamespace(global_step=step, log_every_n_steps=3)  # type: ignore[assignment]
        module._remember_broken(torch.tensor(loss), torch.tensor(0.0))
        module.trainer.global_step += 1
        if step < 2:
            module.on_train_batch_end()  # of a step that is not logged
            continue
        with pytest.raises(UserError) if step == 2 else nullcontext():
            module.on_train_batch_end()
    for stops in (module._stop_where_broken, partial(module.on_save_checkpoint, {"state_dict": {}})):
        with pytest.raises(UserError, match="stage llm: the loss is nan at step 2; .* smaller training.learning_rate"):
            stops()


def test_tests_are_scored_as_was_trained_where_search_does_not_say():
    for said, scored in (("auto", "fp32"), ("bf16", "bf16")):
        cfg = OmegaConf.create({"search": {"precision": said}, "trainer": {"precision": "fp32"}})
        assert opened._for_scoring(cfg).search.precision == scored and cfg.search.precision == said


def test_slurm_writes_no_checkpoint_of_its_own(monkeypatch: pytest.MonkeyPatch):
    assert trainer._environments() == [] and not requeued()
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (environment,) = trainer._environments()
    assert not environment.auto_requeue and requeued()
