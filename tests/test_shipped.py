"""The annotations and the reader that come with mini."""

import json
from pathlib import Path

import pyarrow.parquet as pq
from annotate_runs import QUIET, Command, labels
from conftest import SMOLLM2
from scipy.stats import spearmanr

from uar.collections import open_collection
from uar.collections.reference import MINI
from uar.llm.record import Record
from uar.llm.store.store import Store
from uar.machine.model_files import identity

SHIPPED = MINI / "annotations"


def shipped() -> dict[tuple[str, str], Record]:
    """The records that come with mini, by query and passage."""
    models = {m for part in SHIPPED.glob("*.parquet") for m in pq.read_table(part)["model"].to_pylist()}
    assert len(models) == 1
    records = Store(SHIPPED).records("mini.train", ["likelihood_question"], models.pop())
    return {(r.query_id, r.doc_ids[0]): r for r in records}


def test_the_shipped_annotations_cover_every_question_of_train() -> None:
    mini = open_collection("mini:train")
    records = shipped()
    assert {q for q, _ in records} == set(mini.queries)
    assert {(q, d) for q in mini.queries for d in mini.positives(q)} <= set(records)
    assert {r.outcome for r in records.values()} == {"ok"}


def test_a_fresh_run_reproduces_the_shipped_annotations(tmp_path: Path, command: Command) -> None:
    """In fp32, which all CPUs compute alike: how bf16 is rounded is a matter of the CPU."""
    done = command("annotate", "limit=6", "llm.dtype=fp32", QUIET, "hydra.run.dir=fresh")
    assert done.returncode == 0, done.stderr
    rows = labels(tmp_path / "fresh")
    records = shipped()
    ours = [r["score"] for r in rows]
    theirs = [records[r["query_id"], r["doc_id"]].reply().mean_logprob() for r in rows]
    assert sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(rows) < 0.02
    assert spearmanr(ours, theirs).statistic > 0.99
    first = {r["query_id"]: r["doc_id"] for r in rows if r["rank"] == 1}
    for query_id, best in first.items():
        pool = [r["doc_id"] for r in rows if r["query_id"] == query_id]
        assert best == max(pool, key=lambda d: records[query_id, d].reply().mean_logprob())
    fresh = next(iter(Store(tmp_path / "annotations").records("mini.train", ["likelihood_question"], _model(records))))
    assert fresh.template_hash == records[fresh.query_id, fresh.doc_ids[0]].template_hash


def _model(records: dict[tuple[str, str], Record]) -> str:
    return next(iter(records.values())).model


def test_the_shipped_reader_is_small_and_made_on_the_packaged_model() -> None:
    files = list((MINI / "reader").iterdir())
    assert {"adapter_config.json", "adapter_model.safetensors", "base.json", "README.md"} == {path.name for path in files}
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert json.loads((MINI / "reader" / "adapter_config.json").read_text())["base_model_name_or_path"] == SMOLLM2
    assert json.loads((MINI / "reader" / "base.json").read_text())["identity"] == identity(SMOLLM2)


def test_the_shipped_reader_answers_and_the_untuned_model_does_not(tmp_path: Path, command: Command) -> None:
    """From the gold passages of 12 questions: a third of the answers are right in fp32, and how many are is a matter of the
    CPU."""
    found = {}
    for name, options in {"tuned": [], "untuned": ["llm@rag.llm=smollm2"]}.items():
        limits = ["rag.limit=12", "rag.lines=oracle", "rag.llm.dtype=fp32", QUIET, f"hydra.run.dir={name}"]
        ran = command("uar.evaluate", "retriever=bm25", "collections=[mini:test]", "rag=default", *options, *limits)
        assert ran.returncode == 0, ran.stderr
        found[name] = json.loads((tmp_path / name / "metrics.json").read_text())["rag"]["mini.test"]["oracle"]
    assert found["tuned"]["EM"] > 0 and found["tuned"]["F1"] > found["untuned"]["F1"]
