"""Runs of several processes: Lightning's, torchrun's, and jobs of a sweep, each in a process group of its own."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SMALL, metrics, ok

from uar.collections import open_collection
from uar.pools import BM25Pool, write_pools

Command = Callable[..., subprocess.CompletedProcess[str]]
QUICK = [*SMALL, "rag=off", "logger=csv", "training.batch_size=2", "trainer=ddp_cpu", "dataset.dev=null", "dataset.test=[]"]


def test_two_processes_train_together_and_mine_once(command: Command, fails: Callable[..., str], tmp_path: Path):
    stage = "label_source.stages.human"
    options = [
        *SMALL, "rag=off", "logger=csv", "training.batch_size=2", "trainer=ddp_cpu", "label_source=curriculum",
        f"+candidates@{stage}.candidates=dense", f"{stage}.passages_per_query=3", "hydra.run.dir=two",
    ]  # fmt: skip
    told = ok(command("train", *options))
    found = metrics(tmp_path / "two")
    assert [found["train"][s]["steps"] for s in ("llm", "human")] == [6, 6]
    assert found["retrieval"]["mini.test"]["nDCG@10"] > 0.3 and told.count("are looked up again") == 1
    assert (tmp_path / "two" / "model" / "model.safetensors").is_file()
    labels = pq.read_table(tmp_path / "two" / "labels.parquet").to_pylist()
    mined = [row for row in labels if row["source"] == "mined"]
    assert mined and all(row["stage"] == "human" and row["label"] == 0 for row in mined)
    positives = {(row["query_id"], row["doc_id"]) for row in labels if row["label"] and row["stage"] == "human"}
    assert not positives & {(row["query_id"], row["doc_id"]) for row in mined}
    assert "another number of devices (2 then, 1 now)" in fails("train", *options, "trainer.devices=1", "resume=true")


def test_each_job_of_a_sweep_has_its_own_group_and_one_that_fails_does_not_stop_it(
    command: Command, tmp_path: Path, tiny: list[str]
):
    words = ["-m", "label_source=human", "label_source.positives=many,one,all", *QUICK, *tiny, "trainer.max_steps=2"]
    with tempfile.TemporaryDirectory() as place:  # names of sockets are short: tmp_path would be too long
        done = command("train", *words, TMPDIR=place)
        assert not list(Path(place).glob("uar-job-*"))
    assert done.returncode == 2 and "allowed: one, average, all" in done.stderr
    folders = sorted((tmp_path / "outputs" / "sweep").glob("*/metrics.json"))
    assert [re.findall(r"positives=(\w+)", folder.parent.name) for folder in folders] == [["all"], ["one"]]
    logs = {"uar.log": "GLOBAL_RANK: 0, MEMBER: 1/2", "train_ddp_process_1.log": "GLOBAL_RANK: 1, MEMBER: 2/2"}
    assert all((path.parent / name).read_text().count(line) == 1 for path in folders for name, line in logs.items())


def torchrun(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    return subprocess.run(
        [*start, str(ROOT / "train.py"), *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )


def test_torchrun_starts_the_processes(tmp_path: Path, tiny: list[str]):
    """On pools of a file of the training split; the dev split falls back to BM25's."""
    train = open_collection("mini:train")
    write_pools(tmp_path / "pools.jsonl", BM25Pool(8).pools(train, train.head(24)))
    files = ["candidates=given", f"candidates.path={tmp_path / 'pools.jsonl'}", "dataset.dev=mini:dev"]
    options = [
        *(o for o in QUICK if not o.startswith("dataset.dev")),
        *files,
        *tiny,
        "label_source=human",
        "trainer.max_steps=2",
        "trained_by=outputs/*",
    ]
    done = torchrun(tmp_path, *options, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (done.stdout + done.stderr).count("trained_by=outputs/* is not looked at where torchrun or SLURM starts") == 1
    told = metrics(tmp_path / "run")["train"]["human"]
    assert told["steps"] == 2 and 0 < told["best dev nDCG@10"] <= 1
    assert (done.stdout + done.stderr).count("of 6 queries that candidates has no pools of") == 1
    assert len((tmp_path / "run" / "candidates" / "mini.dev.jsonl").read_text().splitlines()) == 6
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["precision"] in ("bf16", "fp32")
    done = torchrun(tmp_path, *QUICK, "label_source=human", "trainer.max_steps=2")
    assert done.returncode != 0 and "give name= or hydra.run.dir=" in done.stderr


BROKEN = """
import os
from uar.errors import UserError
from uar.losses import contrastive

if os.environ.get("LOCAL_RANK") == "1":
    raise UserError("this one cannot go on")
"""


def test_a_process_that_fails_is_named_and_the_others_do_not_wait_for_it(tmp_path: Path, tiny: list[str]):
    """The second one fails before it meets the first, which would wait for half an hour."""
    (tmp_path / "broken.py").write_text(BROKEN)
    options = [*QUICK, *tiny, "label_source=human", "loss._target_=broken.contrastive", "hydra.run.dir=run"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, str(ROOT / "train.py"), *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    told = done.stdout + done.stderr
    assert done.returncode != 0, told[-3000:]
    assert "error: process 1: " in done.stderr and "this one cannot go on" in done.stderr, told[-3000:]


def test_a_job_goes_through_submitit(command: Command, tmp_path: Path, tiny: list[str]):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    options = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", "trainer=cpu", "trainer.max_steps=2"]
    quick = [*SMALL, *tiny, "dataset.test=[]", "dataset.dev=null", "rag=off", "logger=csv"]
    ok(command("train", "-m", "seed=0,1", "label_source=human", *quick, *options))
    assert len(list((tmp_path / "outputs" / "sweep").glob("*/metrics.json"))) == 2
