"""An LLM is tuned, of random weights here: what is learned, what is written, how a run goes on."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tuning_runs import ASKED, SAYS, ascii_begins, log_probability, preferred, stopped_after, tiny_chat, tuned

from uar.collections import open_collection
from uar.errors import UserError
from uar.evaluation.rag.reader import Reader
from uar.llm.models.transformers import Transformers
from uar.llm.record import Generate
from uar.llm.store.store import Store
from uar.machine.model_files import identity, locate
from uar.tuning import trl_training
from uar.tuning.answer_task import AnswerTask
from uar.tuning.cpu_training import attend_fast
from uar.tuning.steps_taken import Lora, StepsTaken
from uar.tuning.token_rows import TokenRow

ONE = ["rag.top_k=1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_chat(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    yield
    SAYS.clear()
    ASKED.clear()


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.allclose(one[name], other[name], atol=1e-6)}


def test_right_answers_are_learned_and_the_model_opens_everywhere(folder: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    many = ["tuner.steps=80", "tuner.learning_rate=3e-2", "tuner.batch_size=3", "tuner.chunk=3", "tuner.warmup=0.05"]
    reward = tuned(folder, model, out, *ONE, *many, "rag.reader.answer_tokens=12")
    scores = json.loads((out / "tuning.json").read_text())["scores"]
    assert scores["before"]["reward"] == 0 and reward == scores["tuned"]["reward"] > 1  # EM + F1 of at least two of three
    changed = differ(weights(model), weights(out / "model"))
    assert changed and all(".mlp." in name or ".self_attn." in name for name in changed)
    for made, library in (("model", "transformers"), ("adapter", "peft")):
        card = (out / made / "README.md").read_text()
        assert "| tuned |" in card and f"library_name: {library}" in card
    assert not (out / "checkpoints").exists()
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == model
    assert not differ(weights(out / "model"), weights(locate(str(out / "adapter"))))
    engine = Transformers(str(out / "model"), dtype="fp32")
    engine.submit(0, Generate((("user", "Hi."),), 2))
    assert engine.step()[0][1].tokens_out <= 2
    other = tmp_path / "other"
    tuned(folder, model, other, *ONE, f"tuner.lora.adapter={out / 'adapter'}", "dev_questions=0", "tuner.learning_rate=1e-9")
    assert not differ(weights(out / "model"), weights(other / "model"))  # it goes on from there
    narrow, goes_on = tiny_chat(tmp_path / "narrow", hidden_size=16), f"tuner.lora.adapter={out / 'adapter'}"
    with pytest.raises(UserError, match=rf"adapters of {identity(model)}, not of {identity(narrow)}; give base={model}"):
        tuned(folder, narrow, tmp_path / "x", *ONE, goes_on)
    (out / "adapter" / "base.json").unlink()  # as other programs save adapters
    with pytest.raises(UserError, match=rf"it was made for {model} and does not fit {narrow}"):
        tuned(folder, narrow, tmp_path / "x", *ONE, goes_on)


def losses(run: Path) -> dict[int, float]:
    """By step, as the CSV has them."""
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        return {int(float(row["step"])): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [*ONE, "tuner.steps=4", "tuner.checkpoint_every=1", "dev_questions=0", "tuner.lora.dropout=0.1", "logger=csv"]
    tuned(folder, model, tmp_path / "whole", *steps, f"logger.csv.folder={tmp_path / 'whole'}")
    out = tmp_path / "cut"
    steps.append(f"logger.csv.folder={out}")
    with stopped_after(2, monkeypatch):
        tuned(folder, model, out, *steps)
    assert [p.name for p in (out / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    half = out / "checkpoints" / "checkpoint-3"  # a kill while it was written
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="begun with other options"):
        tuned(folder, model, out, *steps, "resume=true", "tuner.learning_rate=1e-2")
    tuned(folder, model, out, *steps, "resume=true")
    assert not differ(weights(tmp_path / "whole" / "model"), weights(out / "model"))
    stamp = (out / "model" / "model.safetensors").stat().st_mtime_ns
    tuned(folder, model, out, *steps, "resume=true")  # it is done
    assert (out / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    of_whole, of_cut = (losses(run) for run in (tmp_path / "whole", out))
    assert of_cut == pytest.approx(of_whole) and list(of_cut) == [1, 2, 3, 4]


def test_the_best_of_several_replies_is_learned(folder: Path, model: str, tmp_path: Path) -> None:
    SAYS.append(lambda request: ["heart", "the big heart", "bees"][request.sample])
    out = tmp_path / "run"
    best = [*ONE, "tuner=best_of", "tuner.samples=3", "dev_questions=0", "tuner.learning_rate=1e-2"]
    tuned(folder, model, out, *best, scripted=True)
    rows = pq.read_table(out / "rollouts.parquet").to_pylist()
    rewards = {(row["query_id"], row["reply"]): row["reward"] for row in rows}
    assert len(rows) == 9 and rewards["q1", "heart"] == 2 and rewards["q1", "the big heart"] == pytest.approx(2 / 3)
    assert rewards["q2", "heart"] == 0 and len(ASKED) == 9
    assert all(request.temperature == 1.0 for request in ASKED)
    (pumps,) = [request for request in ASKED if "what pumps" in request.messages[-1][1] and request.sample == 0]
    before, after = (log_probability(place, pumps, "heart") for place in (model, out / "model"))
    assert after > before + 1
    assert preferred(out / "model", pumps, "heart", "bees") > preferred(model, pumps, "heart", "bees") + 1  # which has 0
    tuned(folder, model, tmp_path / "again", *best, scripted=True)  # another run, whose replies are in the store
    assert len(ASKED) == 9


def test_better_replies_are_preferred(folder: Path, model: str, tmp_path: Path) -> None:
    SAYS.append(lambda request: "honey and the heart pumps blood" if request.sample else "snow ice crystals")
    out = tmp_path / "run"
    options = ["task=pseudo_document", "tuner=dpo", "tuner.samples=2", "tuner.learning_rate=1e-2", "expand.join=replace"]
    assert tuned(folder, model, out, *options, scripted=True) is not None
    honey = [request for request in ASKED if "bees" in request.messages[-1][1] and request.temperature][0]
    texts = SAYS[0](replace(honey, sample=1)), SAYS[0](replace(honey, sample=0))
    assert preferred(out / "model", honey, *texts) > preferred(model, honey, *texts) + 1


def test_replies_are_drawn_as_the_model_learns(folder: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    group = ["tuner=grpo", "tuner.samples=8", "tuner.batch_size=24", "tuner.chunk=24", "tuner.beta=0.01", "tuner.steps=8"]
    more = ["rag.reader.answer_tokens=4", "reward=format", "reward._target_=tuning_runs.Ascii", "dev_questions=0"]
    tuned(folder, model, out, *ONE, *group, *more, "tuner.learning_rate=6e-2")
    toy = open_collection(f"local:{folder}:train")
    (asked, *_) = AnswerTask(Reader(template="rag_short")).cases(toy, {"q1": ["d1"]})
    before, after = (ascii_begins(place, asked.call.request) for place in (model, out / "model"))
    assert before < 0.5 and after > 0.8  # which the reward pays for
    records = [r for step in (0, 1) for r in Store(tmp_path / "store").records("toy.train", ["rag"], _drawn(tmp_path, step))]
    assert len(records) == 48 and all(r.tokens_out <= 4 and r.template == "rag_short" for r in records)


def test_replies_none_of_which_can_be_read_teach_nothing(folder: Path, model: str, tmp_path: Path) -> None:
    group = ["tuner=grpo", "tuner.samples=2", "tuner.steps=1", "task=pointwise"]  # random weights write no grade
    with pytest.raises(UserError, match="none of 2 replies can be read, so there is nothing to learn from"):
        tuned(folder, model, tmp_path / "run", *group)


def _drawn(place: Path, step: int) -> str:
    """The name of the model in records of a step."""
    tables = [pq.read_table(path, columns=["model"]) for path in (place / "store").rglob("*.parquet")]
    (name,) = {m for table in tables for m in table["model"].to_pylist() if m.endswith(f"+step{step}")}
    return name


@pytest.mark.parametrize("prompt", [5, 70])
def test_the_loss_of_replies_is_that_of_trl(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: int) -> None:
    """Also where the prompts begin alike. In 32 bits: sums of some tens of terms differ by rounding alone, 1e-5."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = []
    rows = [TokenRow([*range(prompt), *range(9, 9 + n)], list(range(20, 24 + n))) for n in range(4)]
    settings = {"learning_rate": 1e-3, "epochs": 1, "steps": 2, "batch_size": 4, "chunk": 2, "warmup": 0.0, "clip": 1.0}
    for own in (True, False):
        torch.manual_seed(0)
        taken = StepsTaken(
            Lora(rank=2), scheduler="linear", weight_decay=0.0, precision="fp32", gradient_checkpointing=False,
            checkpoint_every=9, seed=0, **settings,
        )  # fmt: skip
        if not own:
            monkeypatch.setattr(trl_training, "signature", lambda of: type("Nothing", (), {"parameters": ()}))
        numbers: list[float] = []
        trl_training.sft(
            lambda: AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model), rows, taken,
            tmp_path / str(own), lambda values, step, n=numbers: n.append(values.get("train/loss")),
        )  # fmt: skip
        found.append([value for value in numbers if value is not None])
    assert len(found[0]) == 2 and found[0] == pytest.approx(found[1], abs=1e-5)


def test_attention_whose_weights_would_fill_the_memory_keeps_none_of_them(model: str) -> None:
    from transformers import AutoModelForCausalLM

    for pairs, expected in ((8 * 2048**2, "eager"), (1 << 40, "sdpa")):
        opened = AutoModelForCausalLM.from_pretrained(model)
        attend_fast(opened, pairs)
        assert opened.config._attn_implementation == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["task=rewrite"], "tuner=sft: the task knows no right reply; give tuner=best_of, dpo or grpo"),
        (["tuner=best_of", "reward=off"], "tuner=BestOf: it needs a reward; give reward=NAME"),
        (["tuner=best_of", "tuner.samples=1"], "tuner.samples=1: at least 2 replies"),
        (["tuner=dpo", "tuner.temperature=0"], "tuner.temperature=0"),
        (["tuner=grpo", "tuner.samples=3"], "a multiple of tuner.samples=3 is needed"),
        (["tuner.chunk=3"], "tuner.batch_size=2 is no multiple of tuner.chunk=3"),
        (["tuner.scheduler=up"], "tuner.scheduler='up'; allowed: linear"),
        (["tuner.max_length=5"], "each of 3 prompts with replies has more tokens than tuner.max_length, 5: the shortest has"),
        (["reward=agreement"], "reward=agreement compares judgements with labels"),
        (["reward=retrieval"], "reward=retrieval searches with replies"),
        (["task=pseudo_document", "reward.measure=nDCG@200"], "looks deeper than reward.depth=100"),
        (["task=judges"], "Could not find 'task/judges'"),
        (["task=pointwise", "annotator=relsel"], "allowed: pointwise, setwise"),
        (["tuner.lora.adapter=gone"], "adapters gone: adapter_config.json or base.json cannot be read"),
        (["tuner.lora.targets=[lm_head]"], "no such layers; allowed: all-linear, or a list of down_proj, gate_proj"),
        (["tuner.lora.rank=0"], "lora.rank=0: at least 1"),
        (["rag.order=reverse"], "rag.order: 'reverse' is not known; allowed: rank, reversed"),
        (["rag.max_words=0"], "rag.max_words=0: a whole number from 1 on is needed"),
        (["+reward@rewards.answer=answer", "rewards.answer.f1=0"], "rewards.answer: reward= has that name"),
    ],
)
def test_what_cannot_work_is_told(folder: Path, model: str, tmp_path: Path, options: list[str], said: str) -> None:
    with pytest.raises(Exception, match=None) as raised:
        tuned(folder, model, tmp_path / "run", *([] if options[0].startswith("task=") else ONE), *options)
    assert said in str(raised.value) + str(raised.value.__cause__)


def test_what_the_data_or_the_model_lack_is_told(folder: Path, model: str, tmp_path: Path) -> None:
    SAYS.append(lambda request: "")
    with pytest.raises(
        UserError, match=r"none of 6 replies of .* can be read, so there is nothing to learn from; the last: empty"
    ):
        tuned(folder, model, tmp_path / "a", "task=rewrite", "tuner=best_of", "tuner.samples=2", scripted=True)
    SAYS.append(lambda request: "heart")
    with pytest.raises(UserError, match="no prompt has a reply whose reward is above another's"):
        tuned(folder, model, tmp_path / "b", *ONE, "tuner=best_of", "tuner.samples=2", scripted=True)
    (Path(model) / "chat_template.jinja").rename(tmp_path / "kept")
    try:
        with pytest.raises(UserError, match="has no chat template; choose an instruction-tuned model"):
            tuned(folder, model, tmp_path / "c", *ONE)
    finally:
        (tmp_path / "kept").rename(Path(model) / "chat_template.jinja")
    lines = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": q["_id"], "text": q["text"]}) + "\n" for q in lines))
    with pytest.raises(UserError, match="has no gold answers; give dataset.answers=FILE"):
        tuned(folder, model, tmp_path / "d", *ONE)
    with pytest.raises(UserError, match="reward=frozen_reader: .* has no gold answers, so no reply"):
        tuned(folder, model, tmp_path / "e", "task=rewrite", "tuner=best_of", "reward=frozen_reader")


def test_what_is_longer_than_the_models_positions_is_left_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = tiny_chat(tmp_path / "short", max_position_embeddings=245)
    with caplog.at_level("WARNING"):
        tuned(folder, short, tmp_path / "run", *ONE, "dev_questions=0", "tuner.steps=1")
    assert "1 of 3 prompts with replies have more tokens than the model's positions, 245, and are left out" in caplog.text


def test_out_of_memory_is_told(folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(trl_training.Reporting, "on_step_end", full)
    with pytest.raises(UserError, match="out of memory with tuner.chunk=2: give a smaller tuner.chunk"):
        tuned(folder, model, tmp_path / "run", *ONE)
