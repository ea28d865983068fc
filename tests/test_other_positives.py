"""What a stage makes of the positives of the stages before it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from uar.annotation.judgement import Judgement
from uar.collections import Query, open_collection
from uar.errors import UserError
from uar.labels import Curriculum, Example, HumanLabels, LabelContext, LLMLabels, MixedLabels, Stage
from uar.labels.other_positives import with_other_positives

FIRST = Stage("llm", [Example("q1", ("d2", "d9"), ("d1",), "llm", utility=(0.9, 0.8, 0.1))], 1, "all")
SECOND = Stage(
    "human",
    [
        Example("q1", ("d1",), ("d2", "d3"), "human", utility=(2.0, 1.0, None), weight=0.5),
        Example("q2", ("d4",), ("d2",), "human"),
    ],
    1,
    "one",
    learning_rate=1e-6,
)


QUERIES = {"q1": Query("q1", "what pumps blood"), "q2": Query("q2", "what do bees make")}


def treated(rule: str) -> Stage:
    first, second = with_other_positives([FIRST, SECOND], rule, QUERIES)
    assert first == FIRST and (second.name, second.learning_rate) == ("human", 1e-6)
    assert second.examples[1] == SECOND.examples[1]  # of a query that the first stage lacks
    return second


def test_negative_leaves_a_stage_as_its_labels_have_it():
    assert treated("negative") == SECOND


def test_ignored_ones_are_never_a_negative():
    (example, _) = treated("ignore").examples
    assert (example.positives, example.negatives, example.ignored) == (("d1",), ("d3",), ("d2", "d9"))
    assert (example.utility, example.weight, example.source) == ((2.0, None), 0.5, "human")


def test_positive_ones_join_and_say_where_they_are_from():
    (example, _) = treated("positive").examples
    assert [tuple(p) for p in example.pairs()] == [
        ("d1", 1, "human", 2.0), ("d2", 1, "llm", 1.0), ("d9", 1, "llm", None), ("d3", 0, "human", None),
    ]  # fmt: skip
    assert example.weight == 0.5


def test_all_stages_before_count():
    third = Stage("last", [Example("q1", ("d7",), ("d1", "d2", "d3"), "clicks")], 1, "all")
    example = with_other_positives([FIRST, SECOND, third], "ignore", QUERIES)[2].examples[0]
    assert (example.negatives, set(example.ignored)) == (("d3",), {"d1", "d2", "d9"})


def test_those_of_an_equal_question_count_too():
    queries = {**QUERIES, "q2": Query("q2", "What pumps  blood")}
    found = {rule: with_other_positives([FIRST, SECOND], rule, queries)[1].examples[1] for rule in ("ignore", "positive")}
    assert (found["ignore"].negatives, set(found["ignore"].ignored)) == ((), {"d2", "d9"})
    assert (found["positive"].positives, found["positive"].negatives) == (("d4", "d2", "d9"), ())


@pytest.fixture
def context(folder: Path) -> LabelContext:
    """People name d1 for q1; the LLM chose d2, which is in the pool."""
    collection = open_collection(f"local:{folder}:train")

    def pools(query_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {q: ["d1", "d2", "d5"] for q in query_ids}

    judged = {"q1": [Judgement("d2", 1, 1, None, 1), Judgement("d1", 0, 0, None, 2)]}
    return LabelContext(collection, ["q1"], pools, lambda: judged, seed=0)


def test_a_question_that_people_judged_knows_what_the_llm_chose_for_an_equal_one(context: LabelContext):
    own = context.collection
    collection = replace(own, queries={"q1": own.queries["q1"], "again": replace(own.queries["q1"], id="again")})
    judged = {"again": [Judgement("d2", 1, 1, None, 1), Judgement("d5", 0, 0, None, 2)]}
    both = replace(context, collection=collection, query_ids=["q1", "again"], judgements=lambda: judged)
    human = MixedLabels(human_frac=1.0).stages(both)[1]
    assert [(e.query_id, e.negatives, e.ignored) for e in human.examples] == [("q1", ("d5",), ("d2",))]


@pytest.mark.parametrize(("rule", "negatives"), [("negative", ("d2", "d5")), ("ignore", ("d5",)), ("positive", ("d5",))])
def test_mixed_labels_and_a_curriculum_follow_the_rule(
    context: LabelContext, rule: str, negatives: tuple[str, ...], caplog: pytest.LogCaptureFixture
):
    stages = {"llm": {"source": LLMLabels()}, "human": {"source": HumanLabels()}}
    for source in (MixedLabels(human_frac=1, other_positives=rule), Curriculum(stages, other_positives=rule)):
        with caplog.at_level(logging.INFO):
            _, human = source.stages(context)
        assert human.examples[0].negatives == negatives
        assert f"1 hard negatives are positives of an earlier stage; other_positives={rule}" in caplog.text
        caplog.clear()


def test_an_unknown_rule_is_refused(context: LabelContext):
    with pytest.raises(UserError, match="other_positives='both'; allowed: negative, ignore, positive"):
        MixedLabels(other_positives="both").stages(context)
    with pytest.raises(UserError, match="allowed: negative, ignore, positive"):
        Curriculum({"human": {"source": HumanLabels()}}, other_positives="both")
