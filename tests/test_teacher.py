"""Distillation: scores of a model, a run file or an annotator as utilities, kept by content, and learnt from."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import SMALL, ok
from sentence_transformers import SentenceTransformer
from tiny_models import tiny_bert

from uar.annotation.annotators import Judgement
from uar.collections import open_collection
from uar.errors import UserError
from uar.labels import HumanLabels, LabelContext, TeacherLabels, teacher_scores
from uar.losses import kl, margin_mse
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.retrievers.cross_encoder.pair_ranker import PairRanker
from uar.storage.runs import write_run

POOL = ["d1", "d2", "d5"]
JUDGED = {"q1": [Judgement("d2", 1, 1, -0.5, 1), Judgement("d1", 0, 0, -0.9, 2)], "q2": [Judgement("d2", 1, 1, None, 1)]}


@pytest.fixture
def context(folder: Path) -> LabelContext:
    collection = open_collection(f"local:{folder}:train")
    return LabelContext(collection, list(collection.queries), lambda ids: dict.fromkeys(ids, POOL), lambda: JUDGED, seed=0)


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    CrossEncoder(tiny_bert(tmp_path / "bert"), length=32).save(tmp_path / "teacher")
    return str(tmp_path / "teacher")


def test_a_run_file_teaches_what_it_has_scores_of(context: LabelContext, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_run(tmp_path / "a.trec", {"q1": [("d2", 3.0), ("d5", 2.0), ("d1", 1.0)], "q2": [("d1", 7.0), ("d6", 1.0)]}, "a")
    (stage,) = TeacherLabels(str(tmp_path / "a.trec")).stages(context)
    q1, q2 = stage.examples
    assert (q1.positives, q1.negatives, q1.utility) == (("d2",), ("d5", "d1"), (3.0, 2.0, 1.0))
    assert (q2.positives, q2.negatives, q2.utility) == (("d1",), (), (7.0,))
    assert {pair.source for example in stage.examples for pair in example.pairs()} == {"teacher"}
    assert "5 of 9 passages have no score and teach nothing" in caplog.text
    stage.check(kl)


def test_an_annotator_teaches_by_its_scores(context: LabelContext):
    (stage,) = TeacherLabels("annotator").stages(context)
    (example,) = stage.examples
    assert (example.query_id, example.utilities()) == ("q1", {"d2": -0.5, "d1": -0.9})


@pytest.mark.parametrize("make", [CrossEncoder, BiEncoder])
def test_a_model_teaches_in_the_units_that_it_was_trained_in(context: LabelContext, tmp_path: Path, make: type):
    model = make(tiny_bert(tmp_path / "bert"), **({"length": 40} if make is CrossEncoder else {"normalize": True}))
    model.save(tmp_path / "teacher")
    (stage,) = TeacherLabels(str(tmp_path / "teacher"), precision="fp32").stages(context)
    expected = model.score(context.collection, {q: POOL for q in context.query_ids})
    assert len(stage.examples) == 3 and model.scale == (1.0 if make is CrossEncoder else 20.0)
    for example in stage.examples:
        hits = expected[example.query_id]
        assert example.positives + example.negatives == tuple(d for d, _ in hits)
        np.testing.assert_allclose(example.utility, [model.scale * s for _, s in hits], rtol=0.02)  # bf16 where it is fast


def test_a_folder_says_the_scale_of_its_training(
    command: Callable[..., subprocess.CompletedProcess[str]], context: LabelContext, tmp_path: Path, tiny: list[str]
):
    options = [*SMALL, *tiny, "training.epochs=1", "baselines=[]", "logger=none", "rag=off", "dataset.dev=null"]
    scale = ["retriever.scale=50", "retriever.learn_scale=true", "retriever.normalize=true", "training.learning_rate=0.01"]
    ok(command("train", *options, *scale, "dataset.test=[]", "hydra.run.dir=run"))
    folder = tmp_path / "run" / "model"
    learned = json.loads((folder / "uar_scale.json").read_text())["scale"]
    assert 10 < learned < 100 and abs(learned - 50) > 0.1
    expected = BiEncoder(str(folder)).score(context.collection, {q: POOL for q in context.query_ids})
    for scale_of in (learned, 20.0):  # without the file, that of any model with cosines
        for example in TeacherLabels(str(folder), precision="fp32").stages(context)[0].examples:
            cosines = [s for _, s in expected[example.query_id]]
            np.testing.assert_allclose(example.utility, np.multiply(scale_of, cosines), rtol=0.02)  # bf16 where it is fast
        (folder / "uar_scale.json").unlink(missing_ok=True)
    assert SentenceTransformer(str(folder), device="cpu").similarity_fn_name == "cosine"


def test_labels_of_others_keep_their_positives(context: LabelContext, teacher: str):
    (stage,) = TeacherLabels(teacher, labels=HumanLabels(1.0)).stages(context)
    (plain,) = HumanLabels(1.0).stages(context)
    assert [(e.positives, e.negatives, e.source) for e in stage.examples] == [
        (e.positives, e.negatives, e.source) for e in plain.examples
    ]
    assert all(len(e.utilities()) == len(e.positives + e.negatives) for e in stage.examples)
    stage.check(margin_mse)


def test_scores_are_kept_by_content_and_a_killed_run_goes_on(
    context: LabelContext, teacher: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(teacher_scores, "BLOCK", 1)
    scored: list[list[str]] = []
    score = PairRanker.score

    def killed(self: PairRanker, collection: object, pools: dict[str, Sequence[str]]) -> object:
        scored.append(list(pools))
        if len(scored) == 2:
            raise KeyboardInterrupt
        return score(self, collection, pools)  # type: ignore[arg-type]

    monkeypatch.setattr(PairRanker, "score", killed)
    with pytest.raises(KeyboardInterrupt):
        TeacherLabels(teacher).stages(context)
    caplog.set_level("INFO")
    (stage,) = TeacherLabels(teacher).stages(context)
    assert scored == [["q1"], ["q2"], ["q2"], ["q3"]]
    assert "the cache had 1 of 3 parts" in caplog.text
    assert TeacherLabels(teacher).stages(context)[0].examples == stage.examples and len(scored) == 4
    TeacherLabels(teacher, precision="fp32").stages(context)
    assert len(scored) == 7  # another arithmetic is another teacher


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("nope.trec", "label_source.scores=nope.trec: no such run file; give a TREC run, a model, or annotator"),
        ("./nope", "label_source.scores=./nope: .*no such path; give a model folder"),
        ("annotator", "label_source.scores=annotator: it has a score for none of 9 passages; use one with scores"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(context: LabelContext, scores: str, message: str):
    silent = LabelContext(context.collection, context.query_ids, context.pools, dict, 0)
    with pytest.raises(UserError, match=message):
        TeacherLabels(scores).stages(silent)


def test_a_bi_encoder_is_distilled_from_a_cross_encoder(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, tiny: list[str], teacher: str
):
    options = [
        *SMALL,
        *tiny,
        "label_source=teacher",
        f"label_source.scores={teacher}",
        "rag=off",
        "logger=none",
        "baselines=[]",
    ]
    said = ok(command("train", *options, "trainer.max_steps=2", "hydra.run.dir=run"))
    assert "scored the pools of 24 questions" in said
    rows = pq.read_table(tmp_path / "run" / "labels.parquet").to_pylist()
    assert {row["source"] for row in rows} == {"teacher"} and all(row["utility"] is not None for row in rows)
    assert "SentenceTransformer(" in (tmp_path / "run" / "model" / "README.md").read_text()
