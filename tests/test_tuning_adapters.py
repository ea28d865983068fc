"""What a model that learns is compared with, and how it goes on: from adapters, from a revision, after it was stopped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from tuning_runs import ASKED, OPENED, SAYS, stopped_after, tiny_chat, tuned

from uar.errors import UserError
from uar.tuning import trl_training
from uar.tuning.base_model import BaseModel
from uar.tuning.steps_taken import Lora, StepsTaken

ONE = ["rag.top_k=1", "dev_questions=0"]
STEPS = ["tuner.steps=3", "tuner.checkpoint_every=1", "tuner.learning_rate=1e-2", "tuner.samples=2", "tuner.beta=0.5"]
TUNERS = {
    "dpo": ["tuner=dpo"],
    "grpo": ["tuner=grpo", "tuner.batch_size=2", "rag.reader.answer_tokens=4", "reward=length", "reward.words=1"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_chat(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    yield
    for told in (SAYS, ASKED, OPENED):
        told.clear()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("tuner", TUNERS)
def test_adapters_that_go_on_are_resumed_with_what_they_learned(
    folder: Path, model: str, tmp_path: Path, tuner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 32 bits on one machine: the same steps from the same state give the same weights but for rounding."""
    SAYS.append(lambda request: ["heart", "bees"][request.sample])
    tuned(folder, model, tmp_path / "first", *ONE, "tuner.learning_rate=1e-2")
    goes_on = [*ONE, *TUNERS[tuner], *STEPS, f"tuner.lora.adapter={tmp_path / 'first' / 'adapter'}"]
    scripted = tuner == "dpo"
    tuned(folder, model, tmp_path / "whole", *goes_on, scripted=scripted)
    with stopped_after(2, monkeypatch):
        tuned(folder, model, tmp_path / "cut", *goes_on, scripted=scripted)
    tuned(folder, model, tmp_path / "cut", *goes_on, "resume=true", scripted=scripted)
    start, whole, cut = (weights(tmp_path / name) for name in ("first", "whole", "cut"))
    assert start.keys() == whole.keys() == cut.keys()
    assert any(not torch.allclose(start[name], whole[name], atol=1e-4) for name in start)
    assert all(torch.allclose(whole[name], cut[name], atol=1e-6) for name in whole)
    assert not [path.name for path in (tmp_path / "cut" / "adapter").iterdir() if path.is_dir()]  # of what it began as


@pytest.mark.parametrize("tuner", TUNERS)
def test_all_weights_are_compared_with_the_revision_that_they_began_as(
    folder: Path, tmp_path: Path, tuner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "models--owner--name"
    (place / "refs").mkdir(parents=True)
    for name, commit, layers in (("main", "0" * 40, 1), ("v1", "1" * 40, 2)):
        tiny_chat(place / "snapshots" / commit, num_hidden_layers=layers)
        (place / "refs" / name).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    trainers, trained = [], trl_training._trained

    def kept(trainer: Any, report: trl_training.Report) -> Any:
        trainers.append(trainer)
        return trained(trainer, report)

    monkeypatch.setattr(trl_training, "_trained", kept)
    SAYS.append(lambda request: ["heart", "bees"][request.sample])
    all_learn = [*ONE, *TUNERS[tuner], *STEPS, "tuner.steps=1", "tuner.lora.rank=null", "base_revision=v1"]
    tuned(folder, "owner/name", tmp_path / "run", *all_learn, "base=owner/name", scripted=tuner == "dpo")
    assert trainers[0].ref_model.config.num_hidden_layers == 2


def test_what_is_asked_before_is_the_model_that_learns(folder: Path, model: str, tmp_path: Path) -> None:
    SAYS.append(lambda request: ["heart", "bees"][request.sample])
    best = ["rag.top_k=1", "tuner=best_of", "tuner.samples=2", "dev_questions=1"]
    tuned(folder, model, tmp_path / "first", *best, scripted=True)
    assert [model, model, str(tmp_path / "first" / "model")] == OPENED  # it drew replies; asked before and after
    OPENED.clear()
    adapter = str(tmp_path / "first" / "adapter")
    tuned(folder, model, tmp_path / "on", *best, f"tuner.lora.adapter={adapter}", scripted=True)
    assert [adapter, adapter, str(tmp_path / "on" / "model")] == OPENED
    OPENED.clear()
    student = tiny_chat(tmp_path / "student", hidden_size=16)
    tuned(folder, model, tmp_path / "taught", *best, f"base={student}", scripted=True)
    assert [model, student, str(tmp_path / "taught" / "model")] == OPENED


@pytest.mark.parametrize("dev", ["train", "new"])
def test_rewards_of_questions_that_are_learnt_from_are_told(
    folder: Path, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, dev: str
) -> None:
    SAYS.append(lambda request: ["heart", "bees"][request.sample])
    (folder / "qrels" / "new.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td3\t1\n")
    best = ["rag.top_k=1", "tuner=best_of", "tuner.samples=2", "limit=1", f"dataset.dev={dev}"]
    tuned(folder, model, tmp_path / "run", *best, scripted=True)
    assert ("1 of 3 questions are learnt from too" in caplog.text) == (dev == "train")


@pytest.mark.parametrize("given", [{"alpha": 4.0}, {"dropout": 0.1}, {"targets": ["q_proj"]}])
def test_options_of_new_adapters_are_refused_where_none_is_made(given: dict[str, Any]) -> None:
    Lora(rank=2, **given)
    for other, why in (({"rank": None}, "all weights learn"), ({"adapter": "RUN/adapter"}, "that of lora.adapter holds")):
        with pytest.raises(UserError, match=f"lora.{next(iter(given))}=.*: {why}"):
            Lora(**other, **given)


def test_adapters_that_name_their_base_by_another_name_are_asked_on_the_one_that_learns(model: str, tmp_path: Path) -> None:
    taken = StepsTaken(Lora(rank=2), 1e-3, 1, 1, 1, 1, 0.0, "linear", 0.0, 1.0, "fp32", False, 1, 0)
    learned = get_peft_model((base := BaseModel(model, None)).loaded(taken), taken.lora.config(base.loaded(taken)))
    for name, weight in learned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    learned.peft_config[
        "default"
    ].base_model_name_or_path = "owner/elsewhere"  # and no base.json, as other programs write them
    learned.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    asked = base.at_first(str(tmp_path / "adapter"))["model"]
    merged, own = (load_file(Path(place) / "model.safetensors") for place in (asked, model))
    assert merged.keys() == own.keys() and any(not torch.allclose(merged[name], own[name]) for name in own)
