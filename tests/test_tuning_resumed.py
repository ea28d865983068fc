"""A tuning is resumed as what it was; another one in its folder starts with nothing of it."""

from pathlib import Path

import pytest
from omegaconf import DictConfig
from tuning_runs import SAYS, tiny_chat, tuned

from uar.annotation.annotators import Pointwise
from uar.collections import open_collection
from uar.errors import UserError
from uar.launch.entry import composed
from uar.llm.record import Reply
from uar.tuning.base_model import BaseModel
from uar.tuning.judging_task import JudgingTask
from uar.tuning.resuming import begin, settings_of

POOLS = {"q1": ["d2", "d1"]}


def command(folder: Path, *options: str) -> DictConfig:
    given = ["task=rewrite", "reward=frozen_reader", "+reward@rewards.more=frozen_reader", "llm=transformers", "llm.model=o/m"]
    return composed("tune", "dataset=local", f"dataset.path={folder}", *given, *options)


def test_the_store_may_change_and_what_files_say_may_not(folder: Path, tmp_path: Path) -> None:
    toy, base = open_collection(f"local:{folder}:train"), BaseModel("o/m", None)
    prompt, labels, adapter = tmp_path / "prompt.yaml", tmp_path / "labels.qrels", tmp_path / "adapter"
    prompt.write_text("first")
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).write_text("first")
    labels.write_text("q1 0 d1 2\nq1 0 d2 1\n")

    def settings(*options: str) -> str:
        cases = JudgingTask(Pointwise(template="pointwise"), labels=str(labels)).cases(toy, POOLS)
        named = [f"rag.reader.template={prompt}", f"tuner.lora.adapter={adapter}"]
        return settings_of(command(folder, *named, *options), toy, base, cases)

    first = settings()
    assert settings("store=elsewhere", "name=x", "resume=true", "dev_questions=3") == first
    assert settings("tuner.epochs=9") != first and settings("rag.top_k=2") != first
    for file, text in (
        (prompt, "other"),
        (labels, "q1 0 d1 2\nq1 0 d2 0\n"),
        (adapter / "adapter_model.safetensors", "other"),
    ):
        before = file.read_text()
        file.write_text(text)
        assert settings() != first
        file.write_text(before)
    assert settings() == first


def test_another_run_in_a_folder_starts_with_nothing_of_the_first(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, left = tmp_path / "run", ("checkpoints", "model", "adapter", "rollouts.parquet")
    for name in left[:3]:
        (run / name).mkdir(parents=True)
    (run / "rollouts.parquet").write_text("")
    assert not begin(command(folder, "resume=false"), run, "a")
    assert not any((run / name).exists() for name in left)
    (run / "adapter").mkdir()
    assert not begin(command(folder, "resume=true"), run, "a") and (run / "adapter").is_dir()
    assert not caplog.messages
    with pytest.raises(UserError, match="begun with other options, files of other content or another collection"):
        begin(command(folder, "resume=true"), run, "b")
    assert not begin(command(folder, "resume=true"), tmp_path / "mistyped", "a")
    assert "mistyped holds no tuning, so there is nothing to go on from" in caplog.messages[0]


def test_the_dev_split_is_judged_as_the_one_that_is_learned(folder: Path, tmp_path: Path) -> None:
    """Each passage of the dev split has grade 1, which is not positive from 2 up."""
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\n")
    model = tiny_chat(tmp_path / "chat")
    SAYS.append(lambda request: Reply.of_choices({"0": -9.0, "1": -0.1}))
    options = ["task=pointwise", "annotator.scale=binary", "annotator.positive_grade=1", "tuner.steps=1"]
    assert tuned(folder, model, tmp_path / "run", *options, "dataset.positive_grade=2", scripted=True) == 0
    SAYS.clear()
