"""Which queries are labelled next."""

import math
from pathlib import Path

import pytest
from hydra.utils import instantiate

from uar.acquisition import Acquisition, AcquisitionContext, RandomAcquisition, UncertaintyAcquisition
from uar.acquisition.uncertainty_acquisition import uncertainties
from uar.annotation.annotators import Judgement
from uar.errors import UserError
from uar.labels.human import first_share
from uar.launch.entry import composed
from uar.storage.ordering import rank_of

QUERIES = [f"q{i}" for i in range(200)]
JUDGED = {
    "q1": [Judgement("d2", 1, 1, -0.5, 1), Judgement("d1", 0, 0, -0.9, 2)],
    "q2": [Judgement("d2", 1, 1, -0.1, 1), Judgement("d3", 1, 1, -0.2, 2), Judgement("d4", 0, 0, -3.0, 3)],
    "q3": [Judgement("d6", 0, 0, -0.1, 1)],
}
EACH = [RandomAcquisition(), UncertaintyAcquisition()]


def context(seed: int = 3, labelled: frozenset[str] = frozenset()) -> AcquisitionContext:
    return AcquisitionContext(QUERIES, seed, labelled, lambda: JUDGED)


@pytest.mark.parametrize("acquisition", EACH)
def test_an_order_names_each_unlabelled_query_once(acquisition: Acquisition):
    order = acquisition.order(context())
    assert sorted(order) == sorted(QUERIES) and order != QUERIES
    assert acquisition.order(context()) == order != acquisition.order(context(seed=4))
    assert acquisition.order(context(labelled=frozenset(order[:50]))) == order[50:]


def test_random_draws_are_those_of_the_seed_and_the_id():
    assert RandomAcquisition().order(context()) == sorted(QUERIES, key=lambda q: rank_of(3, "human", q))


def test_a_smaller_budget_is_part_of_a_larger_one():
    samples = [first_share(QUERIES, RandomAcquisition().order(context()), share) for share in (0.0, 0.1, 0.2, 0.5, 1.0)]
    assert [len(s) for s in samples] == [0, 20, 40, 100, 200]
    for small, large in zip(samples, samples[1:], strict=False):
        assert set(small) <= set(large)


@pytest.mark.parametrize("fraction", [-0.1, 1.01])
def test_a_budget_outside_0_and_1_is_refused(fraction: float):
    with pytest.raises(UserError, match="0 to 1"):
        first_share(["q"], ["q"], fraction)


def test_the_least_certain_come_first_and_queries_without_an_annotation_last():
    sure = {"q1": -0.4, "q2": -0.1, "q3": -math.inf}  # second score minus first: q3 has one passage only
    assert {q: round(u, 3) for q, u in uncertainties(JUDGED, "margin").items()} == sure
    order = UncertaintyAcquisition().order(context())
    assert order[:2] == ["q2", "q1"]
    judged = AcquisitionContext(["q1", "q2", "q3"], 0, judgements=lambda: {"q3": JUDGED["q1"]})
    assert UncertaintyAcquisition().order(judged)[0] == "q3"


def test_entropy_and_noted_doubt_order_queries():
    flat = [Judgement("a", 1, 1, 0.0, 1), Judgement("b", 0, 0, 0.0, 2)]
    steep = [Judgement("a", 1, 1, 0.0, 1), Judgement("b", 0, 0, -9.0, 2)]
    found = uncertainties({"flat": flat, "steep": steep}, "entropy")
    assert found["flat"] == pytest.approx(1) and found["steep"] < 0.01
    noted = [Judgement("a", 1, 1, 0.5, 1, uncertainty=1.0), Judgement("b", 0, 0, 0.0, 2, uncertainty=0.0)]
    assert uncertainties({"q": noted}) == {"q": 0.5}


def test_what_is_not_there_is_told():
    with pytest.raises(UserError, match="needs an LLM's judgements"):
        UncertaintyAcquisition().order(AcquisitionContext(QUERIES, 0))
    with pytest.raises(UserError, match="needs the queries' vectors"):
        AcquisitionContext(QUERIES, 0).vectors()
    with pytest.raises(UserError, match="allowed: auto, disagreement, margin, entropy"):
        UncertaintyAcquisition("doubt").order(context())


@pytest.mark.parametrize("source", ["mixed", "human"])
def test_acquire_chooses_for_every_source_of_human_labels(source: str):
    assert instantiate(composed("train", f"label_source={source}").label_source).acquire == RandomAcquisition()
    cfg = composed("train", f"label_source={source}", "acquire=uncertainty", "acquire.measure=entropy")
    assert instantiate(cfg.label_source).acquire == UncertaintyAcquisition("entropy")


def test_the_measure_of_mixed_labels_is_that_of_acquire():
    cfg = composed("train", "acquire=uncertainty", "label_source.uncertainty=margin")
    assert instantiate(cfg.label_source).acquire == UncertaintyAcquisition("margin")


def test_a_new_acquisition_is_a_file_and_a_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "longest.py").write_text(
        "from uar.acquisition import Acquisition\n\n\nclass Longest(Acquisition):\n"
        "    def order(self, context):\n        return sorted(context.unlabelled, key=lambda q: (-len(q), q))\n"
    )
    (tmp_path / "acquire").mkdir()
    (tmp_path / "acquire" / "longest.yaml").write_text("_target_: longest.Longest\n")
    monkeypatch.syspath_prepend(tmp_path)
    cfg = composed("train", "acquire=longest", f"hydra.searchpath=[file://{tmp_path}]")
    assert instantiate(cfg.label_source).acquire.order(context())[0] == "q100"
