"""Comparisons of two passages, and the Bradley-Terry scores that they give."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import kendalltau
from scripted import Scripted, run

from uar.annotation.annotators import Pairwise
from uar.annotation.annotators.pairwise import meetings
from uar.annotation.bradley_terry import bradley_terry
from uar.errors import UserError
from uar.llm.call import Question
from uar.llm.record import Choose, Outcome, Reply, Request

PAIRWISE = Pairwise(template="pairwise")


def test_scores_are_those_of_a_pair_by_hand():
    """One comparison won with 0.8: s1 − s2 = d where 0.8 − σ(d) = ridge d / 2."""
    scores, errors = bradley_terry(2, np.array([[0, 1]]), np.array([0.8]), ridge=1e-9)
    assert scores == pytest.approx([math.log(4) / 2, -math.log(4) / 2], abs=1e-6)
    scores, errors = bradley_terry(2, np.array([[0, 1]]), np.array([1.0]), ridge=0.5)
    d = scores[0] - scores[1]
    assert 1 - expit(d) == pytest.approx(0.5 * d / 2, abs=1e-9) and scores.sum() == pytest.approx(0)
    weight = expit(d) * (1 - expit(d))
    inverse = np.linalg.inv([[0.5 + weight, -weight], [-weight, 0.5 + weight]])
    assert errors == pytest.approx(np.sqrt(np.diag(inverse)))
    assert bradley_terry(3, np.zeros((0, 2)), np.zeros(0))[0] == pytest.approx([0, 0, 0])
    with pytest.raises(ValueError, match="above 0"):
        bradley_terry(2, np.array([[0, 1]]), np.array([1.0]), ridge=0.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_known_order_is_recovered(seed: int):
    """From exact probabilities the scores themselves; from one sampled win a comparison nearly the order."""
    drawn = np.random.default_rng(seed)
    true = np.sort(drawn.normal(0, 2, 20))[::-1]
    pool = [f"d{n}" for n in range(20)]
    pairs = np.array([(int(a[1:]), int(b[1:])) for a, b in meetings(f"q{seed}", pool, 8)])
    chances = expit(true[pairs[:, 0]] - true[pairs[:, 1]])
    exact, _ = bradley_terry(20, pairs, chances, ridge=1e-8)
    assert exact == pytest.approx(true - true.mean(), abs=1e-4)
    sampled, _ = bradley_terry(20, pairs, (drawn.random(len(pairs)) < chances).astype(float))
    assert kendalltau(sampled, true).statistic > 0.6


@pytest.mark.parametrize(
    ("size", "opponents", "each"), [(10, 4, 4), (10, 3, 4), (10, None, 9), (4, 8, 3), (7, 2, 2), (2, 4, 1)]
)
def test_each_passage_meets_as_many_others_once(size: int, opponents: int | None, each: int):
    pool = [f"d{n}" for n in range(size)]
    pairs = meetings("q", pool, opponents)
    assert set(Counter(d for pair in pairs for d in pair).values()) == {each}
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) == size * each / 2
    first = Counter(a for a, _ in pairs)
    assert all(abs(2 * first[d] - each) <= 1 for d in pool)
    assert pairs == meetings("q", pool[::-1], opponents) and (size < 5 or pairs != meetings("other", pool, opponents))
    joined, before = {pool[0]}, 0
    while len(joined) > before:
        before = len(joined)
        joined |= {d for pair in pairs if joined & set(pair) for d in pair}
    assert joined == set(pool)


def pool(size: int) -> Question:
    return Question("q1", "which number is greatest", {f"d{n}": f"number {n:02d}" for n in range(size)})


def judge(prefers_first: float) -> Scripted:
    """Prefers the greater number, and what it sees first by so much."""

    def answer(request: Request) -> Reply:
        assert isinstance(request, Choose) and request.choices == ("A", "B")
        lines = request.messages[-1][1].splitlines()
        a, b = (int(line.rpartition(" ")[2]) for line in lines if line.startswith("["))
        p = float(expit(0.2 * (a - b) + prefers_first))
        return Reply.of_choices({"A": math.log(p), "B": math.log(1 - p)})

    return Scripted(answer)


def test_the_order_of_a_pool_comes_out_of_few_comparisons(tmp_path: Path):
    engine = judge(prefers_first=0.0)
    judged, _ = run(tmp_path, PAIRWISE, engine, [pool(20)])
    order = [int(j.doc_id[1:]) for j in judged["q1"]]
    assert kendalltau(order, sorted(order, reverse=True)).statistic > 0.95 and order[0] == 19
    assert len(engine.asked) == 40 and [j.label for j in judged["q1"]] == [1, 1] + [0] * 18
    assert all(j.uncertainty > 0 and j.score is not None for j in judged["q1"])
    biased = judge(prefers_first=1.0)
    both, _ = run(tmp_path / "both", Pairwise(template="pairwise", both_orders=True), biased, [pool(20)])
    assert len(biased.asked) == 80
    order = [int(j.doc_id[1:]) for j in both["q1"]]
    assert kendalltau(order, sorted(order, reverse=True)).statistic > 0.95


def test_failed_comparisons_are_left_out_and_no_labels(tmp_path: Path):
    good = judge(0.0)

    def answer(request: Request) -> Reply:
        return Reply("", Outcome.ERROR) if "number 03" in str(request.messages) else good.answer(request)

    judged, _ = run(tmp_path, PAIRWISE, Scripted(answer), [pool(10)], 1.0)
    assert {j.doc_id for j in judged["q1"]} == {f"d{n}" for n in range(10)} - {"d3"}
    assert judged["q1"][0].doc_id == "d9"
    judged, _ = run(tmp_path / "none", PAIRWISE, Scripted(lambda request: Reply("", Outcome.ERROR)), [pool(10)], 1.0)
    assert judged == {}
    alone, _ = run(tmp_path / "alone", PAIRWISE, Scripted(lambda request: pytest.fail("asked")), [pool(1)])
    assert [(j.doc_id, j.label) for j in alone["q1"]] == [("d0", 1)]


def test_options_are_checked_and_calls_are_told():
    with pytest.raises(UserError, match="annotator.opponents=1: at least 2"):
        Pairwise(template="pairwise", opponents=1)
    assert "8 passages take 16 comparisons a question; annotator.threshold=10 is 1 of 8" in str(PAIRWISE.notes([8, 8, 8]))
    assert "8 passages take 28 comparisons" in str(Pairwise(template="pairwise", opponents=None).notes([8]))
