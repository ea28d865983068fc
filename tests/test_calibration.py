"""Temperature scaling and the measures of calibration."""

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from sklearn.metrics import brier_score_loss

from uar.annotation.annotation import Asked
from uar.annotation.quality.calibration import (
    brier,
    calibration,
    expected_calibration_error,
    fit_temperature,
    probability,
    reliability,
)
from uar.annotation.selection import Annotations
from uar.collections import open_collection
from uar.launch.entry import composed
from uar.llm.models import identity_of
from uar.pools import BM25Pool, write_pools
from uar.storage.manifest import save_config
from uar.training.context import label_context

NONE = float("-inf")


def test_the_probability_by_hand() -> None:
    logprobs = np.log([[0.1, 0.2, 0.3], [0.4, 0.3, 0.1]])  # other tokens had the rest
    assert probability(logprobs, 1) == pytest.approx([5 / 6, 4 / 8])
    assert probability(logprobs, 2) == pytest.approx([3 / 6, 1 / 8])
    halves = np.sqrt([[0.1, 0.2, 0.3], [0.4, 0.3, 0.1]])
    assert probability(logprobs, 2, 2.0) == pytest.approx(halves[:, 2] / halves.sum(axis=1))


def test_a_grade_without_a_probability_is_none_and_nothing_at_all_is_uniform() -> None:
    logprobs = np.array([[0.0, NONE, NONE], [NONE, NONE, -3.0], [NONE, NONE, NONE]])
    assert probability(logprobs, 1, 0.5) == pytest.approx([0, 1, 2 / 3])


@pytest.mark.parametrize("planted", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_found(planted: float) -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(0, 1.5, (20_000, 4))
    human = rng.random(20_000) < probability(true, 2)
    assert fit_temperature(true * planted, 2, human) == pytest.approx(planted, rel=0.08)


def test_calibrated_probabilities_have_less_error() -> None:
    rng = np.random.default_rng(3)
    true = rng.normal(0, 1, (20_000, 3))
    human = rng.random(20_000) < probability(true, 1)
    told = calibration(5 * true, 1, human, fit_temperature(5 * true, 1, human))
    assert told["temperature"] == pytest.approx(5, rel=0.1) and told["pairs"] == 20_000
    assert told["before"]["expected_calibration_error"] > 0.1 > 0.02 > told["after"]["expected_calibration_error"]
    assert told["before"]["brier"] > told["after"]["brier"]
    assert sum(row["pairs"] for row in told["after"]["reliability"]) == 20_000


def test_the_fit_stands_impossible_grades() -> None:
    rng = np.random.default_rng(4)
    true = rng.normal(0, 1.5, (20_000, 3))
    human = rng.random(20_000) < probability(true, 1)
    logprobs = 2 * true
    logprobs[:200, 1:] = NONE  # certain of grade 0, right or wrong
    logprobs[200:400] = NONE
    assert fit_temperature(logprobs, 1, human) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("human", [[0, 0], [1, 1], []])
def test_one_class_alone_fits_nothing(human: list[int]) -> None:
    assert fit_temperature(np.zeros((len(human), 2)), 1, np.array(human)) == 1.0


def test_hopeless_labels_stay_within_the_bounds() -> None:
    logprobs = np.array([[0.0, 5.0], [5.0, 0.0]] * 10)
    assert 19 < fit_temperature(logprobs, 1, np.array([0, 1] * 10)) <= 20
    assert 0.05 <= fit_temperature(logprobs, 1, np.array([1, 0] * 10)) < 0.4


def test_the_measures_by_hand() -> None:
    p, y = np.array([0.0, 0.1, 0.15, 0.95, 1.0]), np.array([0, 1, 0, 1, 1])
    assert brier(p, y) == pytest.approx((0.81 + 0.0225 + 0.0025) / 5) == pytest.approx(brier_score_loss(y, p))
    rows = reliability(p, y)
    assert [(r["above"], r["upto"], r["pairs"]) for r in rows] == [(0.0, 0.1, 2), (0.1, 0.2, 1), (0.9, 1.0, 2)]
    assert [r["probability"] for r in rows] == pytest.approx([0.05, 0.15, 0.975])
    assert [r["positives"] for r in rows] == [0.5, 0.0, 1.0]
    assert expected_calibration_error(p, y) == pytest.approx((2 * 0.45 + 0.15 + 2 * 0.025) / 5)
    assert expected_calibration_error(p, y, bins=1) == pytest.approx(abs(3 / 5 - p.mean()))


@pytest.mark.parametrize(
    ("logprobs", "positive", "temperature"),
    [
        ([[0.0, np.nan]], 1, 1.0),
        ([[0.0, np.inf]], 1, 1.0),
        ([0.0, 1.0], 1, 1.0),
        ([[0.0, 1.0]], 0, 1.0),
        ([[0.0, 1.0]], 2, 1.0),
        ([[0.0, 1.0]], 1, 0.0),
    ],
)
def test_what_is_no_probability_is_refused(logprobs: list, positive: int, temperature: float) -> None:
    with pytest.raises(ValueError, match="needed|1 <= positive < grades"):
        probability(np.array(logprobs), positive, temperature)


@pytest.mark.parametrize("which", ["latest", "union", "FOLDER"])
def test_a_training_of_another_seed_takes_the_temperature_of_the_annotation(which: str, tmp_path: Path) -> None:
    options = ["annotator=pointwise", "annotator.calibration_queries=3", f"store={tmp_path / 'store'}"]
    collection, folder = open_collection("mini:train"), tmp_path / "run"
    save_config(folder, composed("annotate", *options))
    cfg = composed("train", *options, "seed=1", f"annotation={which.replace('FOLDER', str(folder))}")
    annotator = instantiate(cfg.annotator)
    pools = BM25Pool(5).pools(collection, list(collection.queries))
    rng = np.random.default_rng(0)
    said = {q: {d: (float(rng.normal()), float(rng.normal()), 0.0, 0.0) for d in pool} for q, pool in pools.items()}
    judged = {q: annotator.judge(of, 1.0) for q, of in said.items()}
    asked = Asked(annotator, [identity_of(cfg.llm)], collection)
    write_pools(folder / "candidates" / "mini.train.jsonl", pools)
    begun = Annotations(Path(cfg.store)).begin(asked, {}, pools, {"folder": str(folder), "seed": 0})
    begun.keep(judged, [])
    chosen = Annotations(Path(cfg.store)).choose(asked, cfg.annotation)
    assert chosen is not None
    chosen.keep(judged, [])
    scores = [
        {(q, j.doc_id): j.score for q, js in of.items() for j in js}
        for of in (
            label_context(cfg, collection, instantiate(cfg.candidates), tmp_path, []).judgements(),
            *(annotator.finish(collection, judged, seed)[0] for seed in (0, 1)),
        )
    ]
    assert scores[0] == scores[1] != scores[2]
