"""What training cannot learn from is told in one line, before a model is loaded; what it does otherwise is logged."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from uar.errors import UserError
from uar.labels import Example, Stage
from uar.launch.entry import composed
from uar.losses import Loss, contrastive, kl, margin_mse, name_of, rank_net, summed_marginal
from uar.storage.files import write_json
from uar.training import train_run
from uar.training.checks import check_options, check_stage, tell_other_step, tell_unread
from uar.training.dev_score import DevScore
from uar.training.fit import Fitting, Settings, _memory_ran_out
from uar.training.identity import keep_identity, label_hash, loss_hash, schedule_hash, start_anew

Fails = Callable[..., str]
EXAMPLES = [Example("q1", ("d1",), ("d2", "d3"), "human"), Example("q2", ("d2",), (), "human")]


def options(batch_size: int = 4, per_query: int = 3) -> object:
    unjudged = {"false_negative_margin": None, "random_negatives": None}
    return OmegaConf.create({"training": {"batch_size": batch_size, "passages_per_query": per_query, **unjudged}})


def stage(**changes: object) -> Stage:
    return Stage("human", EXAMPLES, 1, "one", **changes)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["search=flat", "search.factory='PQ9'"], "search.factory=PQ9: faiss cannot make it for 384 dimensions"),
        (["search.dimensions=385"], "search.dimensions=385: vectors have 384 numbers; give 1 to 384"),
        (["dataset.test=[empty]"], ":empty: no question with a positive"),
        (["rag=default", "rag.llm.model=none", "rag.answers=none.jsonl"], "error: none.jsonl: cannot be read"),
    ],
)
def test_a_training_that_cannot_be_scored_is_refused_before_it_begins(
    fails: Fails, folder: Path, tmp_path: Path, options: list[str], why: str
) -> None:
    (folder / "qrels" / "empty.tsv").write_text("query-id\tcorpus-id\tscore\n")
    given = ("dataset=local", f"dataset.path={folder}", "label_source=human", "rag=off", "logger=none", "hydra.run.dir=run")
    error = fails("train", *given, *options)
    assert why in error
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "model").exists()


def test_soft_losses_are_refused_on_yes_and_no(fails: Fails, folder: Path):
    told = fails("train", "dataset=local", f"dataset.path={folder}", "label_source=human", "loss=kl", "rag=off", "logger=none")
    assert "loss=kl needs graded or soft labels" in told and "label_source=qa_metric" in told
    with pytest.raises(UserError, match="loss=kl needs"):
        check_stage(stage(loss=kl), summed_marginal, options())


def test_a_query_alone_needs_a_negative(caplog: pytest.LogCaptureFixture):
    with pytest.raises(UserError, match="1 queries have no negative, and a batch of one"):
        check_stage(stage(), contrastive, options(batch_size=1))
    with pytest.raises(UserError, match="1 queries have no negative, and a batch of one"):
        check_stage(Stage("human", EXAMPLES[1:], 1, "one"), contrastive, options())
    with caplog.at_level(logging.INFO):
        check_stage(stage(), contrastive, options())
    assert "1 queries have no negative of their own" in caplog.text


def test_queries_of_weight_0_are_told(caplog: pytest.LogCaptureFixture):
    examples = [replace(EXAMPLES[0], weight=0.0), EXAMPLES[1]]
    with caplog.at_level(logging.INFO):
        check_stage(Stage("human", examples, 1, "one"), contrastive, options())
    assert "1 of 2 queries have weight 0 and are left out" in caplog.text


def test_that_losses_are_the_same_of_one_positive_is_told_with_what_gives_several(caplog: pytest.LogCaptureFixture):
    alike = "contrastive, joint, lse_pair and summed_marginal are the same loss"
    llm = [replace(EXAMPLES[0], source="llm", utility=(1.0, 0.5, 0.0))]
    several = [replace(EXAMPLES[0], positives=("d1", "d4"))]
    cfg = OmegaConf.merge(options(), {"annotator": {"threshold": 10.0}})

    def told(examples: list[Example], positives: str, loss: Loss = summed_marginal) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            check_stage(Stage("s", examples, 1, positives), loss, cfg)
        return caplog.text

    assert f"Stage s: every query learns one positive, with which {alike}; these labels have no more" in told(EXAMPLES, "all")
    assert f"{alike}; a larger annotator.threshold (now 10), or a larger candidates.depth" in told(llm, "all")
    assert f"{alike}; label_source.positives=all takes" in told(several, "one")
    assert alike not in told(several, "all") and alike not in told(several, "average") and alike not in told(llm, "all", kl)


@pytest.mark.parametrize(
    ("option", "value"), [("false_negative_margin", 0.05), ("false_negative_margin", 0.0), ("random_negatives", 2)]
)
@pytest.mark.parametrize("loss", [kl, margin_mse, rank_net], ids=name_of)
def test_what_is_asked_of_unjudged_passages_is_refused_of_losses_of_utilities(loss: Loss, option: str, value: float):
    soft = Stage("llm", [replace(EXAMPLES[0], utility=(1.0, 0.5, 0.0))], 1, "all")
    cfg = OmegaConf.merge(options(), {"training": {option: value}})
    check_stage(soft, summed_marginal, cfg)
    check_stage(soft, loss, OmegaConf.merge(options(), {"training": {"random_negatives": 0}}))
    for stage, run in ((soft, loss), (replace(soft, loss=loss), summed_marginal)):
        with pytest.raises(UserError, match=f"{option}={value} has no meaning for loss={name_of(loss)}"):
            check_stage(stage, run, cfg)


def test_more_passages_a_query_than_the_pool_has_are_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        check_stage(stage(), contrastive, options(per_query=8))
    assert "2 of 2 queries have fewer than passages_per_query=8" in caplog.text


@pytest.mark.parametrize(("batch_size", "per_query"), [(0, 4), (4, 0)])
def test_a_batch_of_nothing_is_refused(batch_size: int, per_query: int):
    with pytest.raises(UserError, match="at least 1"):
        check_stage(stage(), contrastive, options(batch_size, per_query))
    with pytest.raises(UserError, match="batch_size=0"):
        stage(batch_size=0)


def test_a_stage_of_no_step_is_refused(tmp_path: Path):
    done = {"loggers": [], "global_rank": 0, "world_size": 1, "global_step": 0, "interrupted": False}
    on_cpu = SimpleNamespace(root_device=torch.device("cpu"))
    idle = SimpleNamespace(**done, strategy=on_cpu, fit=lambda *_, **__: None)
    settings = Settings(contrastive, partial(torch.optim.AdamW), 0.1, 0, 1)
    retriever = torch.nn.Linear(1, 1)
    retriever.penalty_warmup = 0.0
    fitting = Fitting(settings, lambda *_: None, lambda **_: idle, lambda stage, *_: stage, None, tmp_path, lambda: retriever)
    with pytest.raises(UserError, match="stage human: the trainer made no step, .* see trainer.max_steps"):
        fitting.fit(retriever, [stage()], resume=False)


def test_memory_that_ran_out_is_known_from_other_faults():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert _memory_ran_out(error.value)
    assert _memory_ran_out(torch.OutOfMemoryError("CUDA out of memory")) and _memory_ran_out(MemoryError())
    assert not _memory_ran_out(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize("retriever", ["bm25", "fusion", "hybrid"])
def test_what_has_no_weights_is_not_trained(retriever: str):
    with pytest.raises(UserError, match="has no weights to train; choose a bi-encoder, such as retriever=minilm"):
        check_options(composed("train", f"retriever={retriever}"))


@pytest.mark.parametrize(
    "strategy",
    ["fsdp", "deepspeed_stage_2", "{_target_:lightning.pytorch.strategies.FSDPStrategy}", "model_parallel"],
)
def test_strategies_that_split_weights_are_refused(strategy: str):
    with pytest.raises(UserError, match="splits weights among devices.*take ddp.*lora_rank=16"):
        check_options(composed("train", f"trainer.strategy={strategy}"))
    check_options(composed("train", "trainer.strategy=ddp_find_unused_parameters_true"))


@pytest.mark.parametrize(
    ("strategy", "why"),
    [("ddp_fork", "begin by fork"), ("ddp_spawn_find_unused_parameters_true", "begin by spawn"), ("xla", "is not known here"),
     ("{_target_:lightning.pytorch.strategies.DDPStrategy,start_method:fork}", "begin by fork"), ("dpp", "is not known here")],
)  # fmt: skip
def test_strategies_whose_processes_do_not_run_the_command_are_refused(strategy: str, why: str):
    with pytest.raises(UserError, match=f"trainer.strategy=.*{why}.*; allowed: auto, ddp, ddp_find.*single_device"):
        check_options(composed("train", f"trainer.strategy={strategy}"))
    for done in ("auto", "ddp", "single_device"):
        check_options(composed("train", f"trainer.strategy={done}"))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_that_small_steps_are_lost_in_are_refused(precision: str):
    with pytest.raises(UserError, match=f"trainer.precision={precision}: small steps of weights are lost in it; give bf16 or"):
        check_options(composed("train", f"trainer.precision={precision}"))
    check_options(composed("train", "trainer.precision=bf16-mixed"))


def test_weights_in_bf16_do_not_learn():
    with pytest.raises(UserError, match="retriever.dtype=bf16: .* give retriever.lora_rank=16"):
        check_options(composed("train", "retriever.dtype=bf16"))
    check_options(composed("train", "retriever.dtype=bf16", "retriever.lora_rank=4"))


def test_options_of_adapters_without_adapters_are_told(caplog: pytest.LogCaptureFixture):
    given = ["retriever.lora_alpha=8", "retriever.lora_targets=[query]"]
    for more in ([*given, "retriever.lora_rank=4"], ["retriever=llm_lora"], []):
        check_options(composed("train", *more))
    assert "lora" not in caplog.text
    check_options(composed("train", *given))
    check_options(composed("train", "retriever=llm_lora", "retriever.lora_rank=null"))
    why = ": no effect, since all weights learn and no adapters; give retriever.lora_rank=16, or leave it out"
    assert caplog.messages == [
        f"retriever.lora_alpha=8, retriever.lora_targets=['query']{why}",
        f"retriever.lora_alpha=32, retriever.lora_dropout=0.05{why}",
    ]


@pytest.mark.parametrize(
    "option",
    [
        "checkpoint_every=0",
        "warmup=100",
        "warmup=-0.1",
        "dev_queries=0",
        "patience=0",
        "step_queries=0",
        "batch_size=0",
        "passages_per_query=0",
    ],
)
def test_options_that_make_no_sense_are_named(option: str):
    with pytest.raises(UserError, match=rf"training\.{option}: a .* is needed"):
        check_options(composed("train", f"training.{option}"))
    with pytest.raises(UserError, match="stage human: warmup=2: a share"):
        check_stage(stage(warmup=2), contrastive, options())


def test_options_without_effect_are_told(caplog: pytest.LogCaptureFixture):
    for source in ("human", "mixed", "curriculum"):
        check_options(composed("train", f"label_source={source}", "human_frac=0.5", "training.patience=2"))
    assert not caplog.text
    check_options(composed("train", "label_source=llm", "human_frac=0.5", "dataset.dev=null", "training.patience=2"))
    assert "human_frac=0.5 has no effect" in caplog.text and "training.patience=2 has no effect" in caplog.text


@pytest.mark.parametrize(
    ("given", "annotated", "pooled", "told"),
    [
        (["label_source=human", "annotator=utilsel", "annotator.max_words=9"], False, True, ["annotator=", "annotator.max"]),
        (["label_source=human", "acquire=core_set", "llm@rag.llm=smollm2", "llm=openai"], False, True, ["acquire=", "llm=op"]),
        (["label_source=human", "acquire=core_set", "human_frac=0.5", "candidates.depth=4"], False, True, []),
        (["label_source=llm", "candidates=dense", "candidates.depth=4", "annotator.rule=x"], True, False, ["candidates.d"]),
        (["label_source=llm", "combine=learned", "acquire=first", "variants=rules"], True, True, ["variants="]),
        (["label_source=mixed", "acquire=first", "variants.kinds=[typos]", "training.invariance=1"], True, True, []),
    ],
)  # fmt: skip
def test_what_labels_do_not_read_is_told(
    given: list, annotated: bool, pooled: bool, told: list, caplog: pytest.LogCaptureFixture
):
    tell_unread(composed("train", *given), given, annotated, pooled)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(told) and all(line.startswith(name) for line, name in zip(lines, told, strict=True))
    assert all(" has no effect on what is learnt: " in line for line in lines)


def test_only_the_same_run_is_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "checkpoints" / "identity.json"
    now = {"collection": "a" * 32, "labels": "b" * 32, "precision": "bf16"}
    keep_identity(path, now, resume=True)
    assert "holds no checkpoints, so there is nothing to go on from" in caplog.text
    keep_identity(path, now, resume=True)
    with pytest.raises(UserError, match=r"another labels \(bbbbbbbb then, cccccccc now\)"):
        keep_identity(path, now | {"labels": "c" * 32}, resume=True)
    with pytest.raises(UserError, match=r"another precision \(bf16 then, fp32 now\)"):
        keep_identity(path, now | {"precision": "fp32"}, resume=True)
    keep_identity(path, now | {"labels": "c" * 32}, resume=False)
    write_json(path, {})
    with pytest.raises(UserError, match="another collection .*, another labels"):
        keep_identity(path, now, resume=True)


def identity(*overrides: str, devices: int = 8, dev: DevScore | None = None) -> dict[str, str]:
    """Of a run with these options; collection and retriever stand for their hash and name."""
    cfg = composed("train", "trainer.precision=fp32", *overrides)
    part = SimpleNamespace(hash="c", name="r")
    work = SimpleNamespace(collection=part, stages=[], loss=contrastive, retriever=part, further=None)
    return train_run._identity(cfg, work, "labels", devices, dev)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "option",
    ["retriever.token_budget=64", "retriever.compile=true", "retriever.gradient_checkpointing=true",
     "training.grad_cache=true", "training.checkpoint_every=7", "training.step_queries=9", "trainer.devices=[0,1]",
     "trainer.enable_progress_bar=false", "trainer=ddp_cpu", "trainer.log_every_n_steps=9"],
)  # fmt: skip
def test_a_resumed_run_may_compute_otherwise(option: str):
    assert identity(option) == identity()


def test_a_run_is_not_resumed_on_another_number_of_devices(tmp_path: Path):
    path = tmp_path / "checkpoints" / "identity.json"
    keep_identity(path, identity("trainer=ddp"), resume=False)
    keep_identity(path, identity("trainer=ddp"), resume=True)
    with pytest.raises(UserError, match=r"was started with another number of devices \(8 then, 4 now\); give"):
        keep_identity(path, identity("trainer=ddp", devices=4), resume=True)
    for option in (
        "retriever.passage_length=99",
        "training.batch_size=9",
        "+trainer.accumulate_grad_batches=2",
        "+trainer.limit_train_batches=2",
    ):
        with pytest.raises(UserError, match=r"another (retriever|schedule) \("):
            keep_identity(path, identity("trainer=ddp", option), resume=True)


def test_where_negatives_are_looked_up_again_is_part_of_a_run_and_the_same_in_each_process():
    mined = ["label_source=curriculum", "+candidates@label_source.stages.human.candidates=expanded"]
    assert identity(*mined) == identity(*mined) != identity(*mined, "label_source.stages.human.candidates.depth=9")


def test_what_checkpoints_are_chosen_by_is_part_of_a_run():
    def scored(shown: dict[str, list[str]], split: str = "s") -> DevScore:
        return DevScore(SimpleNamespace(hash=split), shown, "fp32")  # type: ignore[arg-type]

    pools = {"q1": ["d1", "d2"], "q2": ["d3"]}
    same = identity(dev=scored({"q1": ["d2", "d1"], "q2": ["d3"]}))
    assert identity(dev=scored(pools)) == same != identity(dev=scored(pools | {"q2": ["d3", "d4"]}))
    assert same != identity(dev=scored(pools, "other")) and identity()["dev split"] == "none"


@pytest.mark.parametrize(
    ("devices", "batches", "told"),
    [
        (4, 1, "A step of stage human sees 64 queries (batch_size=16 on each of 4 devices), "),
        (8, 1, ""),
        (4, 2, ""),
        (
            8,
            2,
            "A step of stage human sees 256 queries (batch_size=16 on each of 8 devices, trainer.accumulate_grad_batches=2), ",
        ),
    ],
)
def test_a_step_of_other_queries_than_a_setting_means_is_told(
    devices: int, batches: int, told: str, caplog: pytest.LogCaptureFixture
):
    together = [f"+trainer.accumulate_grad_batches={batches}"] if batches > 1 else []
    tell_other_step(composed("train", "+setting=msmarco", *together), [stage()], devices)
    assert told in caplog.text
    tell_other_step(composed("train"), [stage()], devices)
    tell_other_step(composed("train", "+setting=msmarco", "+scale=mini"), [stage()], 1)
    assert len(caplog.messages) == bool(told)


def test_a_stage_with_a_batch_size_of_its_own_is_told_by_it(caplog: pytest.LogCaptureFixture):
    stages = [Stage("llm", EXAMPLES, 1, "one"), Stage("human", EXAMPLES, 1, "one", batch_size=4)]
    tell_other_step(composed("train", "+setting=msmarco"), stages, 8)
    (line,) = caplog.messages
    assert line.startswith("A step of stage human sees 32 queries (batch_size=4 on each of 8 devices), and the settings")


def test_a_run_that_starts_anew_keeps_nothing_of_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for finished in (True, False):
        place = tmp_path / "checkpoints" / "1-human"
        place.mkdir(parents=True)
        for path in (place / "done.json", place / "best.ckpt", tmp_path / "significance.json", tmp_path / "other.json"):
            write_json(path, {})
        if finished:
            write_json(tmp_path / "metrics.json", {"train": {"human": {"steps": 3}}, "retrieval": {"mini.test": {"AP": 1.0}}})
        start_anew(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["other.json"]
        assert ("resume=true would have gone on" in caplog.text) != finished


def test_hashes_change_with_what_they_are_of():
    other = [Example("q1", ("d1",), ("d2", "d3"), "human", utility=(1.0, None, 0.0)), EXAMPLES[1]]
    assert label_hash([stage()]) != label_hash([Stage("human", other, 1, "one")])
    heavier = [replace(EXAMPLES[0], weight=2.0), EXAMPLES[1]]
    assert label_hash([stage()]) != label_hash([Stage("human", heavier, 1, "one")])
    assert loss_hash([stage()], contrastive) == loss_hash([stage(loss=contrastive)], kl) != loss_hash([stage()], kl)
    assert schedule_hash([stage()]) != schedule_hash([stage(learning_rate=1e-3)])
