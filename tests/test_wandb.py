"""Annotate, a sweep of trainings, evaluate: their offline W&B runs, read back from their files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_command
from conftest import SMALL, metrics, ok
from llm_server import serve
from wandb_files import OfflineRun, offline_run
from wandb_server import serve_wandb

from uar.collections import open_collection
from uar.storage.files import write_table

NO_KEY = {"WANDB_MODE": None, "WANDB_API_KEY": None, "NETRC": "/no/such/file"}
TRAIN = ["label_source=mixed", "human_frac=0.25", "rag=off", "training.batch_size=4", *SMALL[2:]]


def numbers(nested: dict, above: str = "") -> dict[str, float]:
    """The numbers of a metrics.json by their paths."""
    found = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{above}{name}/")
        elif value is not None:
            found[above + name] = int(value) if isinstance(value, bool) else value
    return found


def write_labels(path: Path) -> None:
    """Labels of the passages that people judged of eight questions: theirs, but for one passage that is only on the topic."""
    mini = open_collection("mini:train")
    rows = [(q, d, int(grade >= 2), grade / 2) for q in mini.head(8) for d, grade in mini.qrels[q].items()]
    at = next(n for n, row in enumerate(rows) if not row[2])
    rows[at] = (*rows[at][:2], 1, 0.75)
    columns = zip(("query_id", "doc_id", "label", "score"), zip(*rows, strict=True), strict=True)
    write_table(path, pa.table({name: list(values) for name, values in columns}))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the three commands have run, with no key and no setting of W&B."""
    folder = tmp_path_factory.mktemp("jobs")
    write_labels(folder / "kept.parquet")
    labels = ["annotator=import", "annotator.path=kept.parquet", "limit=8"]
    sweep = ["-m", "seed=0,1", "hydra.sweep.dir=outputs/budgets", "hydra.sweep.subdir=seed-${seed}"]
    with serve() as server:
        server.answer = lambda messages: "the heart"
        rag = ["rag=default", "llm@rag.llm=openai", f"rag.llm.base_urls=[{server.url}]", "rag.llm.model=m", "rag.limit=3"]
        scored = ["model=outputs/budgets/seed-0/model", "collections=[mini:test]", *rag, "hydra.run.dir=scored"]
        for name, arguments in (
            ("annotate", [*labels, "hydra.run.dir=annotated"]),
            ("train", [*sweep, *labels, *TRAIN]),
            ("uar.evaluate", scored),
        ):
            ok(run_command(name, arguments, folder, 300, NO_KEY))
    return folder


@pytest.fixture(scope="module")
def annotated(place: Path) -> OfflineRun:
    return offline_run(place / "annotated")


@pytest.fixture(scope="module")
def trained(place: Path) -> list[OfflineRun]:
    """Of both jobs, by their seeds."""
    return [offline_run(place / "outputs" / "budgets" / f"seed-{seed}") for seed in (0, 1)]


@pytest.fixture(scope="module")
def scored(place: Path) -> OfflineRun:
    return offline_run(place / "scored")


def test_a_job_has_one_run_and_those_of_a_sweep_are_a_group(
    annotated: OfflineRun, trained: list[OfflineRun], scored: OfflineRun
):
    runs = [annotated, *trained, scored]
    assert len({run.id for run in runs}) == 4
    assert [run.group for run in runs] == ["", "budgets", "budgets", ""]
    assert [run.job_type for run in runs] == ["annotate", "train", "train", "evaluate"]
    assert [run.name for run in runs] == ["annotated", "seed-0", "seed-1", "scored"]
    assert {run.project for run in runs} == {"uar"} and {run.exit_code for run in runs} == {0}


def test_the_config_is_flat(trained: list[OfflineRun]):
    config = trained[1].config
    assert (config["seed"], config["label_source.human_frac"], config["training.batch_size"]) == (1, 0.25, 4)
    (row,) = {run.config["row"] for run in trained}
    assert row.startswith("annotator.path=kept.parquet,") and "limit=8" in row and "seed=" not in row
    assert config["dataset.test"] == ["mini:test"] and config["stages"] == ["llm", "human"]
    assert config["loss._target_"] == "uar.losses.summed_marginal"
    assert config["manifest.packages.torch"] and len(config["manifest.labels"]) == 32


def test_the_history_has_the_names_of_metrics_json_and_the_stage(trained: list[OfflineRun]):
    run = trained[0]
    folder = run.folder.parent.parent
    steps = [row for row in run.history if "llm/loss" in row or "human/loss" in row]
    assert [(row["stage_name"], row["stage"], row["trainer/global_step"]) for row in steps] == [
        ("llm", 0, 0), ("llm", 0, 1), ("human", 1, 2),
    ]  # fmt: skip
    assert [row["stage_name"] for row in run.history if "dev/nDCG@10" in row] == ["llm", "human"]
    expected = numbers(metrics(folder))
    assert {"retrieval/mini.test/nDCG@10", "train/llm/steps", "train/human/best dev nDCG@10", "time/train"} <= set(expected)
    assert {name: run.values(name) for name in expected} == {name: [pytest.approx(v)] for name, v in expected.items()}
    assert {name: run.summary[name] for name in expected} == pytest.approx(expected)


def test_annotations_labels_model_and_evaluation_are_a_chain(
    annotated: OfflineRun, trained: list[OfflineRun], scored: OfflineRun, place: Path
):
    first = trained[0]
    made, taken = annotated.of("annotations"), first.of("annotations")
    assert (made.name, made.digest, made.taken) == ("annotations-mini.train", taken.digest, False) and taken.taken
    assert made.facts["queries"] == 8 and made.facts["annotator"]["path"] == "kept.parquet"
    assert {a.digest for a in trained[1].artefacts if a.kind == "annotations"} == {made.digest}
    labels = first.of("labels")
    assert labels.name == "labels-mini.train" and not labels.taken and set(labels.uploaded) == {"labels.parquet"}
    assert set(annotated.of("labels").uploaded) >= {"labels.parquet", "labels.qrels", "ledger.json", "agreement.json"}
    model, used = first.of("model"), scored.of("model")
    assert (model.name, model.digest, model.taken) == (used.name, used.digest, False) and used.taken
    assert model.facts["labels"] == first.config["manifest.labels"]
    assert set(model.referred) == {"model.safetensors"} and {"README.md", "modules.json"} <= set(model.uploaded)
    assert trained[1].of("model").digest != model.digest
    assert scored.config["lineage.took"] == [f"model-mini.train {model.digest}"]
    evaluation = scored.of("evaluation")
    assert set(evaluation.uploaded) == {
        "runs/mini.test.trec", "scores/mini.test.parquet", "generations/mini.test.parquet"
    }  # fmt: skip
    lineage = json.loads((first.folder.parent.parent / "lineage.json").read_text())
    assert [a["kind"] for a in lineage["took"]] == ["annotations"]
    assert [a["kind"] for a in lineage["made"]] == ["evaluation", "labels", "model"]


def test_all_that_waits_for_an_upload_lies_in_the_run_folder(
    annotated: OfflineRun, trained: list[OfflineRun], scored: OfflineRun
):
    for run in (annotated, *trained, scored):
        folder = run.folder.parent.parent
        for artefact in run.artefacts:
            for path in artefact.uploaded.values():
                assert path.is_file() and (artefact.taken or path.is_relative_to(folder)), path


def test_tables_of_scores_and_generations(scored: OfflineRun, place: Path):
    kept = pq.read_table(place / "scored" / "scores" / "mini.test.parquet").to_pylist()
    expected = {row["query_id"]: row["value"] for row in kept if row["measure"] == "nDCG@10"}
    rows = scored.table("scores/mini.test")
    assert {row["query_id"]: row["nDCG@10"] for row in rows} == pytest.approx(expected) and len(rows) == 56
    assert all(row["query"] for row in rows)
    answers = scored.table("generations/mini.test")
    told = pq.read_table(place / "scored" / "generations" / "mini.test.parquet").to_pylist()
    assert [(a["query_id"], a["doc_ids"]) for a in answers] == [(t["query_id"], "; ".join(t["doc_ids"])) for t in told]
    assert len(answers) == 3 and {a["answer"] for a in answers} == {"the heart"}
    assert np.mean([a["F1"] for a in answers]) == pytest.approx(metrics(place / "scored")["rag"]["mini.test"]["F1"])
    tables = sorted(a.name for a in scored.artefacts if a.kind == "run_table")
    begin = [f"run-{scored.id}-{kind}mini.test-" for kind in ("generations", "scores")]  # then W&B's own random letters
    assert [name[: len(start)] for name, start in zip(tables, begin, strict=True)] == begin


def test_annotation_tells_costs_agreement_and_disagreements(annotated: OfflineRun, place: Path):
    for part in ("ledger", "agreement"):
        told = numbers(json.loads((place / "annotated" / f"{part}.json").read_text()))
        told = {f"{part}/{name}": value for name, value in told.items() if isinstance(value, int | float)}
        assert len(told) > 5 and {name: annotated.summary[name] for name in told} == pytest.approx(told)
    rows = annotated.table("disagreements")
    assert len(rows) == 1 and set(rows[0]) >= {"query", "passage", "human_grade", "label", "score"}
    kept = {(r["query_id"], r["doc_id"]): r for r in pq.read_table(place / "annotated" / "labels.parquet").to_pylist()}
    for row in rows:
        judgement = kept[row["query_id"], row["doc_id"]]
        assert (row["label"], row["score"]) == (judgement["label"], pytest.approx(judgement["score"]))
        assert bool(row["label"]) != (row["human_grade"] >= 2)


def test_wandb_sync_uploads_what_was_kept(trained: list[OfflineRun], tmp_path: Path):
    run = trained[0]
    copy = tmp_path / run.folder.name
    shutil.copytree(run.folder, copy)
    with serve_wandb() as server:
        settings = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40, "WANDB_MODE": "online"}
        command = [Path(sys.executable).parent / "wandb", "sync", "--yes", copy]
        done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first = server.inputs("UpsertBucket")[0]
    assert (first["name"], first["project"], first["groupName"], first["jobType"]) == (run.id, "uar", "budgets", "train")
    assert json.loads(server.inputs("UpsertBucket")[-1]["config"])["label_source.human_frac"]["value"] == 0.25
    assert [row["llm/loss"] for row in server.history if "llm/loss" in row] == run.values("llm/loss")
    assert sum("retrieval/mini.test/nDCG@10" in row for row in server.history) == 1
    made = {told["artifactTypeName"]: told for told in server.inputs("CreateArtifact")}
    assert {"annotations", "labels", "model", "evaluation", "run_table"} == set(made)
    assert made["model"]["artifactCollectionName"] == "model-mini.train"
    (used,) = server.inputs("UseArtifact")
    assert (used["artifactID"], used["runName"]) == (run.of("annotations").digest, run.id)
    assert any(name.startswith("media/table/scores/mini.test") for name in server.files)
