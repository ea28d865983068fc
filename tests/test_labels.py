from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from uar.annotation.stages import Judgement
from uar.collections import open_collection
from uar.errors import UserError
from uar.labels import HumanLabels, LabelContext, LLMLabels, MixedLabels
from uar.labels.budget import nested_sample

JUDGED = {
    "q1": [Judgement("d2", 1, 1, -0.5, 1), Judgement("d1", 0, 0, -0.9, 2)],
    "q2": [Judgement("d2", 1, 1, -0.1, 1), Judgement("d3", 1, 1, -0.2, 2), Judgement("d4", 0, 0, -3.0, 3)],
    "q3": [Judgement("d6", 0, 0, -0.1, 1)],
}


@pytest.fixture
def context(folder: Path) -> LabelContext:
    collection = open_collection(f"local:{folder}:train")

    def pools(query_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {q: ["d1", "d2", "d5"] for q in query_ids}

    return LabelContext(collection, list(collection.queries), pools, lambda: JUDGED, seed=0)


def test_human_labels_are_the_qrels_with_the_rest_of_the_pool_as_negatives(context: LabelContext):
    (stage,) = HumanLabels().stages(context)
    assert [(e.query_id, e.positives, e.negatives) for e in stage.examples] == [
        ("q1", ("d1",), ("d2", "d5")),
        ("q2", ("d2",), ("d1", "d5")),
        ("q3", ("d3",), ("d1", "d2", "d5")),
    ]
    assert (stage.name, stage.positives) == ("human", "one")


def test_llm_labels_are_the_annotators_and_leave_out_queries_without_a_positive(context: LabelContext):
    (stage,) = LLMLabels().stages(context)
    assert [(e.query_id, e.positives, e.negatives, e.source) for e in stage.examples] == [
        ("q1", ("d2",), ("d1",), "llm"),
        ("q2", ("d2", "d3"), ("d4",), "llm"),
    ]


def test_mixed_labels_are_a_curriculum_of_llm_then_human(context: LabelContext):
    llm, human = MixedLabels(human_frac=0.34).stages(context)
    assert (llm.name, len(llm.examples), llm.positives) == ("llm", 2, "all")
    assert (human.name, len(human.examples), human.positives) == ("human", 1, "one")


def test_mixed_without_human_budget_is_the_llm_alone(context: LabelContext):
    assert [s.name for s in MixedLabels(human_frac=0).stages(context)] == ["llm"]


def test_union_joins_both_kinds_of_positives(context: LabelContext):
    (stage,) = MixedLabels(human_frac=1, strategy="union").stages(context)
    joined = {e.query_id: e for e in stage.examples}
    assert set(joined["q1"].positives) == {"d1", "d2"} and joined["q1"].source == "human+llm"
    assert joined["q3"].source == "human"
    assert not any(set(e.positives) & set(e.negatives) for e in stage.examples)


def test_a_smaller_human_budget_is_part_of_a_larger_one():
    queries = [f"q{i}" for i in range(200)]
    samples = [nested_sample(queries, share, seed=3) for share in (0.0, 0.1, 0.2, 0.5, 1.0)]
    assert [len(s) for s in samples] == [0, 20, 40, 100, 200]
    for small, large in zip(samples, samples[1:], strict=False):
        assert set(small) <= set(large)
    assert nested_sample(queries, 0.2, seed=4) != samples[2]
    assert nested_sample(queries[:100] + queries[100:], 0.2, seed=3) == samples[2]


@pytest.mark.parametrize("fraction", [-0.1, 1.01])
def test_a_budget_outside_0_and_1_is_refused(fraction: float):
    with pytest.raises(UserError, match="0 to 1"):
        nested_sample(["q"], fraction, 0)
