"""Faults of processes that work beside each other are those of the one that started them."""

import errno
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_bert

from uar.collections import open_collection
from uar.collections.token_ids import corpus_tokens
from uar.errors import DataError, UserError
from uar.launch.one_line import one_line
from uar.machine.children import run_children
from uar.retrievers import encode
from uar.retrievers.bi_encoder.encoder import BiEncoder


def broken(rank: int, how: str) -> None:
    if rank == 0:
        return
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {
        "file": DataError("x.jsonl", "no such row", 7),
        "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shard-00000.npy"),
        "program": ZeroDivisionError("a fault of the program"),
    }[how]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("file", "x.jsonl:7: no such row"),
        ("disk", "no space left while writing shard-00000.npy"),
        ("killed", "one of 2 processes was killed (SIGKILL)"),
        ("program", None),
    ],
)
def test_what_a_user_can_mend_is_one_line(how: str, said: str | None):
    with pytest.raises(Exception, match="") as error:
        run_children(broken, 2, (how,), lambda: None)
    line = one_line(error.value)
    assert (line or "").startswith(said or "") and (line is None) == (said is None)
    assert said or "a fault of the program" in str(error.value)  # with its traceback


def test_a_broken_model_is_told_by_several_processes_as_by_one(tmp_path: Path):
    model = BiEncoder(tiny_bert(tmp_path / "model"))
    tokens = corpus_tokens(open_collection("mini:test"), model.tokenizer, 8)
    with torch.no_grad():
        next(iter(model.parameters())).fill_(np.nan)
    for processes in (1, 2):
        with pytest.raises(UserError, match=r"vectors are nan or too large .*; train with a smaller training.learning_rate"):
            encode.encode_corpus(model, tokens, tmp_path / str(processes), processes=processes, shard=300)
