"""Several annotators as one, learned from the human labels of a few questions."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from simulated_judges import POOL, collection_of, context_of, scoring, selecting, truth_of, values_of
from sklearn.metrics import roc_auc_score

from uar.annotation.annotators import Judgement
from uar.collections import open_collection
from uar.errors import UserError
from uar.labels import LLMLabels
from uar.labels.human import human_sample
from uar.labels.learned_combination import LearnedCombination
from uar.launch.entry import composed
from uar.reporting.run_folders import find_runs
from uar.training.train_run import train

Judged = Mapping[str, list[Judgement]]
SEEDED = 40  # questions


def annotators(truth: dict, seed: int) -> dict[str, Judged]:
    """Of known error: one that takes a third of what is useless, one that misses much, one whose scores differ by question."""
    return {
        "generous": selecting(truth, misses=0.05, wrong=0.35, seed=10 * seed),
        "strict": selecting(truth, misses=0.45, wrong=0.05, seed=10 * seed + 1),
        "scores": scoring(truth, noise=0.7, seed=10 * seed + 2, offset=2.0),
    }


def scores_of(judged: Judged) -> dict[tuple[str, str], float]:
    """By pair, the score, or the label and the place where the annotator has none."""
    of = {(q, j.doc_id): j.score if j.score is not None else j.label - j.rank / 100 for q, js in judged.items() for j in js}
    return {pair: float(value) for pair, value in of.items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_above_the_majority_and_never_much_below_the_best_alone(tmp_path: Path, seed: int):
    truth = truth_of(queries=240, seed=seed)
    context = context_of(collection_of(tmp_path / "known", truth))
    judged = annotators(truth, seed)
    joined, facts = LearnedCombination(human_frac=SEEDED / len(truth)).combine(judged, context)
    assert facts and len(facts["human_questions"]) == SEEDED and facts["pairs"] == 10 * SEEDED
    rest = {q: of for q, of in truth.items() if q not in facts["human_questions"]}

    def auroc(found: dict[tuple[str, str], float]) -> float:
        return float(roc_auc_score(*values_of(rest, lambda q, d: found[q, d])))

    probabilities = scores_of(joined)
    learned = auroc(probabilities)
    labels = [{(q, j.doc_id): j.label for q, js in of.items() for j in js} for of in judged.values()]
    votes = {pair: float(np.mean([own[pair] for own in labels])) for pair in labels[0]}
    alone = [auroc(scores) for scores in map(scores_of, judged.values())]
    assert learned > auroc(votes) + 0.01
    assert learned > max(alone) - 0.01
    said, chances = (np.array(x) for x in values_of(rest, lambda q, d: probabilities[q, d]))
    for low, high in ((0.0, 0.25), (0.25, 0.75), (0.75, 1.01)):
        own = (chances >= low) & (chances < high)
        assert abs(chances[own].mean() - said[own].mean()) < 0.12


def test_two_annotators_that_say_nothing_do_not_spoil_a_good_one(tmp_path: Path):
    truth = truth_of(queries=240, seed=5)
    context = context_of(collection_of(tmp_path / "known", truth))
    judged = {
        "good": scoring(truth, noise=0.3, seed=1),
        "noise": scoring(truth, noise=50.0, seed=2),
        "coin": selecting(truth, misses=0.5, wrong=0.5, seed=3),
    }
    joined, facts = LearnedCombination(human_frac=SEEDED / len(truth)).combine(judged, context)
    rest = {q: of for q, of in truth.items() if facts and q not in facts["human_questions"]}
    learned, good = scores_of(joined), scores_of(judged["good"])
    auroc = [roc_auc_score(*values_of(rest, lambda q, d, of=of: of[q, d])) for of in (learned, good)]
    assert auroc[0] > auroc[1] - 0.01


@pytest.mark.parametrize("model", ["logistic", "boosting"])
def test_judgements_are_probabilities_in_order_with_who_said_so(tmp_path: Path, model: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    truth = truth_of(queries=80, seed=3)
    context = context_of(collection_of(tmp_path / "known", truth))
    judged = {name: dict(of) for name, of in annotators(truth, 3).items()}
    judged["generous"].pop("q7")
    judged["strict"]["q7"] = judged["strict"]["q7"][:4]
    combination = LearnedCombination(human_frac=0.5, model=model, threshold=0.4)
    joined, facts = combination.combine(judged, context)
    assert set(joined) == set(truth) and len(joined["q7"]) == POOL and "missing" not in joined
    for judgements in joined.values():
        scores = [j.score for j in judgements]
        assert [j.rank for j in judgements] == list(range(1, len(judgements) + 1))
        assert scores == sorted(scores, reverse=True) and all(0 <= s <= 1 for s in scores)
        assert all(j.label == int(j.score >= 0.4) and j.uncertainty is not None for j in judgements)
    best = joined["q1"][0]
    labels = {name: next(j.label for j in of["q1"] if j.doc_id == best.doc_id) for name, of in judged.items()}
    assert best.by == "+".join(name for name, label in labels.items() if label == best.label)
    assert joined["q1"] == combination.combine(judged, context)[0]["q1"]
    assert "fitted on human labels of 40 questions (human_frac=0.5), 400 passages" in caplog.text
    assert facts["auroc"] > max(facts["auroc_alone"].values()) and facts["brier"] < 0.15
    (stage,) = LLMLabels().stages(replace(context, judgements=lambda: joined))
    assert 60 < len(stage.examples) <= 80 and all(0 <= u <= 1 for e in stage.examples for u in e.utilities().values())


def test_it_learns_from_the_questions_that_mixed_takes(tmp_path: Path):
    truth = truth_of(queries=40, seed=4)
    context = context_of(collection_of(tmp_path / "known", truth))
    _, facts = LearnedCombination(human_frac=0.3).combine(annotators(truth, 4), context)
    assert facts["human_questions"] == human_sample(context, 0.3, LearnedCombination.acquire)


def test_what_cannot_be_learned_from_is_one_line(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    truth = truth_of(queries=20, seed=6)
    context = context_of(collection_of(tmp_path / "known", truth))
    judged = annotators(truth, 6)
    for frac, fault in ((0.0, "has no human label to learn from"), (1.5, "combine.human_frac=1.5")):
        with pytest.raises(UserError, match=fault):
            LearnedCombination(human_frac=frac).combine(judged, context)
    other = {"first": {"q1": [Judgement("d1", 1, 1, 0.5, 1)]}}
    toy = open_collection(f"local:{folder}:train")
    with pytest.raises(UserError, match="all 1 passages of the 1 questions .* are useful"):
        LearnedCombination(human_frac=1.0).combine(other, context_of(toy))
    with pytest.raises(UserError, match="the annotators judged 0 of them"):
        LearnedCombination(human_frac=1.0).combine({"first": {}}, context_of(toy))
    written = replace(context, collection=replace(context.collection, origin="generated"))
    with pytest.raises(UserError, match="has no human label to learn from: 0 questions have one"):
        LearnedCombination(human_frac=0.5).combine(judged, written)
    for model in ("logistic", "boosting"):
        with pytest.raises(UserError, match="learns from 1 questions with human labels .* cannot be tried on another one"):
            LearnedCombination(human_frac=0.05, model=model).combine(judged, context)
    LearnedCombination(human_frac=0.1).combine(judged, context)
    assert "2 questions are few to learn from" in caplog.text
    for odd in ({"model": "tree"}, {"threshold": 1.0}):
        with pytest.raises(UserError, match="combine."):
            LearnedCombination(**odd)
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(UserError, match=r"pip install 'uar\[learned\]'"):
        LearnedCombination(human_frac=0.5).combine(judged, context)


def test_a_run_trains_on_them_and_counts_its_human_questions(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    """Of the annotators whose labels come with mini; what they surely call useless is pushed away."""
    monkeypatch.chdir(tmp_path)
    words = [
        "label_source=llm",
        "+annotator@annotators.second=joint_likelihood",
        "combine=learned",
        "human_frac=0.1",
        "loss=negative_learning",
    ]
    short = [
        "loss=negative_learning",
        "dataset.dev=null",
        "dataset.test=[mini:ood]",
        "trainer.max_steps=1",
        "baselines=[]",
        "rag=off",
        "logger=none",
    ]
    train(composed("train", *words, *short, *tiny), tmp_path / "run")
    (run,) = find_runs([str(tmp_path / "run")]).runs
    facts = run.manifest["annotations"][-1]
    assert len(facts["human_questions"]) == 17 and run.learnt["people"] == 17 < run.learnt["questions"]
    assert facts["auroc"] > max(facts["auroc_alone"].values())
    assert pq.read_table(tmp_path / "run" / "labels.parquet")["source"].to_pylist().count("llm:first+second") > 50
