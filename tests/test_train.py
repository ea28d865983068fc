"""The real train and evaluate commands on `mini`, offline, from its shipped annotations."""

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import SMALL, metrics, ok
from sentence_transformers import SentenceTransformer

from uar.storage.label_files import SCHEMA

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_mixed_labels_end_to_end(command: Command, tmp_path: Path):
    run = tmp_path / "run"
    options = ["label_source=mixed", "human_frac=0.25", "rag.limit=2", "seed=7", *SMALL, f"hydra.run.dir={run}"]
    options += ["trainer.precision=fp32"]  # scores of other batches are the same then, on any CPU
    options += ["retriever.passage_length=48"]  # the corpus is encoded four times here
    told = ok(command("train", *options, WANDB_MODE="offline"))
    assert "24 of 24 queries are annotated" in told and "6 of 24 queries (human_frac=0.25" in told
    assert "nDCG@10 on the tests" in told and "trained − untrained" in told
    assert "every query learns one positive" in told and "a larger annotator.threshold, or" in told

    found = metrics(run)
    assert set(found) == {"retrieval", "rag", "train", "time"}
    assert set(found["retrieval"]["mini.test"]) == {"nDCG@10", "RR@10", "R@100", "AP"}
    assert (
        set(found["rag"]["mini.test"]) == {"EM", "F1", "questions", "empty", "failed"}
        and found["rag"]["mini.test"]["questions"] == 2
    )
    assert [found["train"][s]["steps"] for s in ("llm", "human")] == [6, 2]
    assert all(0 < found["train"][s]["best dev nDCG@10"] <= 1 for s in ("llm", "human"))

    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["seed"], config["label_source"]["human_frac"]) == (7, 0.25)
    assert {"git_commit", "packages", "collection", "labels", "model"} <= set(json.loads((run / "manifest.json").read_text()))

    labels = pq.read_table(run / "labels.parquet")
    assert labels.schema.equals(SCHEMA)
    pairs = set(zip(labels["source"].to_pylist(), labels["stage"].to_pylist(), strict=True))
    assert pairs == {("llm", "llm"), ("human", "human")}

    scores = pq.read_table(run / "scores" / "mini.test.parquet").to_pylist()
    ndcg = [row["value"] for row in scores if row["measure"] == "nDCG@10"]
    assert len(ndcg) == 56 and np.mean(ndcg) == pytest.approx(found["retrieval"]["mini.test"]["nDCG@10"])
    assert {row["measure"] for row in scores} == {"nDCG@10", "RR@10", "R@100", "AP", "EM", "F1"}
    generations = pq.read_table(run / "generations" / "mini.test.parquet").to_pylist()
    assert len(generations) == 2 and all(len(row["doc_ids"]) == 5 for row in generations)
    assert len((run / "runs" / "mini.test.trec").read_text().splitlines()[0].split()) == 6

    with (run / "csv" / "metrics.csv").open() as file:
        columns = set(next(csv.reader(file)))
    assert {"llm/loss", "human/loss", "dev/nDCG@10", "retrieval/mini.test/nDCG@10"} <= columns
    (offline,) = (run / "wandb").glob("offline-run-*/*.wandb")
    assert offline.stat().st_size > 1000
    assert [p.name for p in (run / "checkpoints").rglob("*") if p.is_file() and p.suffix == ".ckpt"] == []
    beside = sum(p.stat().st_size for p in run.rglob("*") if p.is_file() and run / "model" not in p.parents)
    assert beside < 20e6

    model = SentenceTransformer(str(run / "model"), device="cpu")
    assert model.encode(["a passage"]).shape == (1, 384)
    again = tmp_path / "again"
    scored = [f"model={run / 'model'}", "collections=[mini:test]", "search.precision=fp32"]
    ok(command("uar.evaluate", *scored, f"hydra.run.dir={again}"))
    assert metrics(again)["retrieval"]["mini.test"] == pytest.approx(found["retrieval"]["mini.test"], abs=1e-6)
    reranked = tmp_path / "reranked"
    ok(command("uar.evaluate", *scored, f"run={run / 'runs/mini.test.trec'}", f"hydra.run.dir={reranked}"))
    assert metrics(reranked)["retrieval"]["mini.test"] == pytest.approx(found["retrieval"]["mini.test"], abs=0.01)
    alone = tmp_path / "alone"
    ok(command("uar.evaluate", f"run={run / 'runs/mini.test.trec'}", "collections=[mini:test]", f"hydra.run.dir={alone}"))
    assert metrics(alone)["retrieval"] == found["retrieval"]
    against = tmp_path / "against"
    told = ok(
        command("uar.evaluate", "retriever=bm25", "collections=[mini:test]", f"baseline={run}", f"hydra.run.dir={against}")
    )
    assert "mini.test against" in told
    ours, theirs = (metrics(f)["retrieval"]["mini.test"]["AP"] for f in (against, run))
    assert json.loads((against / "significance.json").read_text())["mini.test"]["AP"]["difference"] == pytest.approx(
        ours - theirs
    )
    beside = json.loads((run / "baselines.json").read_text())
    assert beside["retrieval"]["bm25"]["mini.test"] == pytest.approx(metrics(against)["retrieval"]["mini.test"])
    assert set(beside["retrieval"]) == set(beside["significance"]) == {"bm25", "untrained"}
    table = ok(command("uar.report", f"runs=[{run},{again}]", f"out={tmp_path / 'report'}"))
    value = f"{found['retrieval']['mini.test']['nDCG@10']:.3f}"
    assert value in table and value in (tmp_path / "report" / "report.md").read_text()


def test_a_sweep_runs_every_job_and_keeps_their_folders(command: Command, tmp_path: Path, tiny: list[str]):
    quick = [*SMALL, *tiny, "rag=off", "logger=csv", "trainer.max_steps=2"]
    ok(command("train", "-m", "label_source=human,llm", "loss=contrastive,summed_marginal", *quick))
    folders = sorted((tmp_path / "outputs" / "sweep").glob("*/metrics.json"))
    assert len(folders) == 4
    assert {next(iter(json.loads(f.read_text())["train"])) for f in folders} == {"human", "llm"}


def test_training_changes_the_scores_for_the_better(command: Command, tmp_path: Path):
    quick = ["limit=96", "rag=off", "logger=none", "dataset.test=[mini:test]", "dataset.dev=null"]
    ok(command("train", "label_source=llm", "trainer.precision=fp32", *quick, f"hydra.run.dir={tmp_path / 'run'}"))
    untrained = json.loads((tmp_path / "run" / "baselines.json").read_text())["retrieval"]["untrained"]["mini.test"]
    assert metrics(tmp_path / "run")["retrieval"]["mini.test"]["nDCG@10"] > untrained["nDCG@10"] + 0.05


@pytest.mark.parametrize("validation", [[], ["+trainer.check_val_every_n_epoch=3"]])
def test_a_stage_stops_where_the_dev_score_no_longer_rises(
    command: Command, tmp_path: Path, tiny: list[str], validation: list[str]
):
    quick = [*SMALL, *tiny, "rag=off", "logger=csv", "dataset.test=[]", "label_source=llm"]
    still = ["training.epochs=6", "training.patience=1", "training.learning_rate=0"]
    told = ok(command("train", *quick, *still, *validation, "hydra.run.dir=run"))
    assert metrics(tmp_path / "run")["train"]["llm"]["steps"] == 2 * 6
    assert "is not scored: there is no collection" in told and "┃ collection" not in told


def test_without_a_generator_the_run_says_so_and_goes_on(command: Command, tmp_path: Path):
    told = ok(
        command(
            "uar.evaluate",
            "retriever=bm25",
            "collections=[mini:test]",
            "rag=default",
            "rag.llm.model=pkg:no_llm/x",
            "hydra.run.dir=run",
        )
    )
    assert "pip install no_llm" in told
    assert metrics(tmp_path / "run")["retrieval"]["mini.test"]["nDCG@10"] > 0.4 and not metrics(tmp_path / "run")["rag"]


@pytest.mark.parametrize(("limit", "where"), [(12, "stage human: the loss is (nan|inf) at step 2"), (4, "vectors are nan")])
def test_a_run_that_breaks_stops_and_exports_nothing(fails: Callable[..., str], tmp_path: Path, limit: int, where: str):
    """With 4 queries it is the last step that breaks the weights."""
    small = [
        f"limit={limit}",
        "training.batch_size=4",
        "dataset.dev=null",
        "dataset.test=[mini:test]",
        "trainer.precision=fp32",
    ]
    broken = ["training.learning_rate=1e38", "training.warmup=0.0"]
    line = fails("train", "label_source=human", *small, *broken, "rag=off", "logger=none", f"hydra.run.dir={tmp_path}/run")
    assert re.search(where, line) and "training.learning_rate" in line
    assert not (tmp_path / "run" / "model").exists() and not (tmp_path / "run" / "metrics.json").exists()
