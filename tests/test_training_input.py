"""What training cannot learn from is told in one line, before a model is loaded; what it does otherwise is logged."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from uar.errors import UserError
from uar.files import write_json
from uar.labels import Example, Stage
from uar.losses import contrastive, kl, summed_marginal
from uar.training.fit import _memory_ran_out
from uar.training.identity import keep_identity, label_hash, loss_hash, schedule_hash
from uar.training.run import _check

Fails = Callable[..., str]
EXAMPLES = [Example("q1", ("d1",), ("d2", "d3"), "human"), Example("q2", ("d2",), (), "human")]


def options(batch_size: int = 4, per_query: int = 3) -> object:
    return OmegaConf.create({"training": {"batch_size": batch_size, "passages_per_query": per_query}})


def stage(**changes: object) -> Stage:
    return Stage("human", EXAMPLES, 1, "one", **changes)


def test_soft_losses_are_refused_on_yes_and_no(fails: Fails, folder: Path):
    told = fails("train", "dataset=local", f"dataset.path={folder}", "label_source=human", "loss=kl", "rag=off", "logger=none")
    assert "loss=kl needs graded or soft labels" in told and "label_source=qa_metric" in told
    with pytest.raises(UserError, match="loss=kl needs"):
        _check(stage(loss=kl), summed_marginal, options())


def test_a_query_alone_needs_a_negative(caplog: pytest.LogCaptureFixture):
    with pytest.raises(UserError, match="1 queries have no negative, and a batch of one"):
        _check(stage(), contrastive, options(batch_size=1))
    with caplog.at_level(logging.INFO):
        _check(stage(), contrastive, options())
    assert "1 queries have no negative of their own" in caplog.text


def test_more_passages_a_query_than_the_pool_has_are_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        _check(stage(), contrastive, options(per_query=8))
    assert "2 of 2 queries have fewer than passages_per_query=8" in caplog.text


@pytest.mark.parametrize(("batch_size", "per_query"), [(0, 4), (4, 0)])
def test_a_batch_of_nothing_is_refused(batch_size: int, per_query: int):
    with pytest.raises(UserError, match="at least 1"):
        _check(stage(), contrastive, options(batch_size, per_query))
    with pytest.raises(UserError, match="batch_size=0"):
        stage(batch_size=0)


def test_memory_that_ran_out_is_known_from_other_faults():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert _memory_ran_out(error.value)
    assert _memory_ran_out(torch.OutOfMemoryError("CUDA out of memory")) and _memory_ran_out(MemoryError())
    assert not _memory_ran_out(RuntimeError("shapes do not fit"))


def test_only_the_same_run_is_resumed(tmp_path: Path):
    path = tmp_path / "checkpoints" / "identity.json"
    now = {"collection": "a" * 32, "labels": "b" * 32}
    keep_identity(path, now, resume=True)  # nothing was there
    keep_identity(path, now, resume=True)
    with pytest.raises(UserError, match=r"another labels \(bbbbbbbb then, cccccccc now\)"):
        keep_identity(path, now | {"labels": "c" * 32}, resume=True)
    keep_identity(path, now | {"labels": "c" * 32}, resume=False)
    write_json(path, {})
    with pytest.raises(UserError, match="another collection .*, another labels"):
        keep_identity(path, now, resume=True)


def test_hashes_change_with_what_they_are_of():
    other = [Example("q1", ("d1",), ("d2", "d3"), "human", utility=(1.0, None, 0.0)), EXAMPLES[1]]
    assert label_hash([stage()]) != label_hash([Stage("human", other, 1, "one")])
    assert loss_hash([stage()], contrastive) == loss_hash([stage(loss=contrastive)], kl) != loss_hash([stage()], kl)
    assert schedule_hash([stage()]) != schedule_hash([stage(learning_rate=1e-3)])
