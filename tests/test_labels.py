import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from uar.acquisition import UncertaintyAcquisition
from uar.annotation.annotators import Judgement
from uar.collections import open_collection
from uar.errors import UserError
from uar.labels import (
    Curriculum,
    Example,
    HumanLabels,
    LabelContext,
    LabelSource,
    LLMLabels,
    MixedLabels,
    QAMetricLabels,
    Stage,
)
from uar.labels import label_table as table
from uar.labels.combine import combine
from uar.labels.corrupt import corrupted
from uar.labels.mixed import union
from uar.losses import contrastive, kl
from uar.storage import label_files

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


def test_the_table_of_labels_is_whole_whatever_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    examples = [
        Example("q1", ("d1",), ("d2", "d3"), "llm", utility=(0.5, None, -1.0), weight=0.25),
        Example("q2", ("d4",), (), "human"),
    ]
    stages = [Stage("llm", examples, 1, "all"), Stage("human", examples[1:], 1, "one")]
    expected = [
        {"query_id": q, "doc_id": d, "label": x, "source": by, "stage": s, "utility": u, "weight": 0.25 if q == "q1" else 1.0}
        for q, d, x, by, s, u in [
            ("q1", "d1", 1, "llm", "llm", 0.5), ("q1", "d2", 0, "llm", "llm", None), ("q1", "d3", 0, "llm", "llm", -1.0),
            ("q2", "d4", 1, "human", "llm", None), ("q2", "d4", 1, "human", "human", None),
        ]
    ]  # fmt: skip
    for rows in (1, 2, 100):
        monkeypatch.setattr(label_files, "BLOCK", rows)
        table.write_label_table(tmp_path / "labels.parquet", stages)
        read = pq.ParquetFile(tmp_path / "labels.parquet")
        assert read.read(list(table.COLUMNS)).to_pylist() == expected and read.num_row_groups == -(-5 // rows)
    table.write_label_table(tmp_path / "labels.parquet", [])
    assert pq.read_table(tmp_path / "labels.parquet").num_rows == 0


def test_human_labels_are_the_qrels_with_the_rest_of_the_pool_as_negatives(context: LabelContext):
    (stage,) = HumanLabels().stages(context)
    assert [(e.query_id, e.positives, e.negatives) for e in stage.examples] == [
        ("q1", ("d1",), ("d2", "d5")),
        ("q2", ("d2",), ("d1", "d5")),
        ("q3", ("d3",), ("d1", "d2", "d5")),
    ]
    assert (stage.name, stage.positives) == ("human", "one")


@pytest.fixture
def copied(folder: Path, context: LabelContext) -> LabelContext:
    """The pool's d5 is a copy of d1, the human positive of q1."""
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text().replace("A violin has four strings.", "The heart pumps blood through the body."))
    return replace(context, collection=open_collection(f"local:{folder}:train"))


def test_a_copy_of_a_positive_is_no_negative(copied: LabelContext):
    (stage,) = HumanLabels().stages(copied)
    assert [(e.positives, e.negatives) for e in stage.examples] == [
        (("d1", "d5"), ("d2",)),
        (("d2",), ("d1", "d5")),
        (("d3",), ("d1", "d2", "d5")),
    ]
    judged = {"q1": [Judgement("d2", 1, 1, -0.5, 1), Judgement("d5", 0, 0, -0.9, 2)]}
    asked = replace(copied, judgements=lambda: judged, pools=lambda query_ids: dict.fromkeys(query_ids, ["d1", "d2"]))
    (stage,) = MixedLabels(human_frac=1.0, strategy="union").stages(asked)
    example = next(e for e in stage.examples if e.query_id == "q1")
    assert set(example.positives) == {"d1", "d2", "d5"} and not example.negatives


def test_a_copy_of_a_human_positive_is_left_out_and_put_in_with_it(copied: LabelContext):
    judged = {"q1": [Judgement("d5", 1, 1, -0.1, 1), Judgement("d2", 1, 1, -0.5, 2), Judgement("d4", 0, 0, -0.9, 3)]}
    (left_out,) = LLMLabels(human_positive="exclude").stages(replace(copied, judgements=lambda: judged))
    assert [(e.positives, e.negatives, e.ignored) for e in left_out.examples] == [(("d2",), ("d4",), ("d1",))]
    useless = {"q1": [replace(j, label=0) for j in judged["q1"]]}
    (put_in,) = LLMLabels(human_positive="include").stages(replace(copied, judgements=lambda: useless))
    assert pairs_of(put_in, "q1")[:2] == [("d5", 1, "human", -0.1), ("d1", 1, "human", None)]


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


def pairs_of(stage: Stage, query_id: str) -> list[tuple]:
    (found,) = [e for e in stage.examples if e.query_id == query_id]
    return [tuple(p) for p in found.pairs()]


def test_llm_scores_are_utilities(context: LabelContext):
    (stage,) = LLMLabels().stages(context)
    assert pairs_of(stage, "q2") == [("d2", 1, "llm", -0.1), ("d3", 1, "llm", -0.2), ("d4", 0, "llm", -3.0)]


def test_the_human_positive_may_be_left_out_or_put_in(context: LabelContext):
    (left_out,) = LLMLabels(human_positive="exclude").stages(context)
    (q2,) = [e for e in left_out.examples if e.query_id == "q2"]
    assert (q2.positives, q2.negatives, q2.ignored) == (("d3",), ("d4",), ("d2",))
    (put_in,) = LLMLabels(human_positive="include").stages(context)
    assert pairs_of(put_in, "q1") == [("d2", 1, "llm", -0.5), ("d1", 1, "human", -0.9)]
    assert ("d2", 1, "human+llm", -0.1) in pairs_of(put_in, "q2")
    assert ("d3", 1, "human", None) in pairs_of(put_in, "q3")  # not in the judged pool, and the LLM found nothing
    with pytest.raises(UserError, match="random, exclude, include"):
        LLMLabels(human_positive="ignore").stages(context)


def test_a_known_share_of_the_labels_is_moved_to_wrong_passages(context: LabelContext):
    judged = {f"q{n}": [Judgement(f"d{d}", int(d < 2), int(d < 2), -float(d), d + 1) for d in range(6)] for n in range(50)}
    judged["all"] = [Judgement("d1", 1, 1, None, 1)]
    assert corrupted(judged, 0.0, 0) == judged
    few, many, every = (corrupted(judged, share, 0) for share in (0.2, 0.6, 1.0))
    wrong = [{q for q in judged if found[q] != judged[q]} for found in (few, many, every)]
    assert [len(w) for w in wrong] == [10, 30, 50] and wrong[0] < wrong[1] < wrong[2]
    for query_id in wrong[0]:
        assert few[query_id] == many[query_id]
        moved = {j.doc_id: j for j in few[query_id]}
        assert len(moved) == 6 and not {d for d, j in moved.items() if j.label} & {"d0", "d1"}
        assert sorted((j.label, j.score) for j in moved.values()) == [(0, s) for s in (-5.0, -4.0, -3.0, -2.0)] + [
            (1, -1.0),
            (1, 0.0),
        ]
    assert corrupted(judged, 0.2, 1) != few
    (stage,) = LLMLabels(corrupt=1.0).stages(context)
    assert [(e.query_id, set(e.positives)) for e in stage.examples] == [("q1", {"d1"}), ("q2", {"d4", "d3"})]
    for share in (1.2, -0.1, True):
        with pytest.raises(UserError, match="corrupt"):
            LLMLabels(corrupt=share).stages(context)


def test_a_union_and_a_curriculum_keep_weights(context: LabelContext):
    llm, human = (Example("q1", ("d1",), ("d2",), by, weight=w) for by, w in (("llm", 0.5), ("human", 2.0)))
    assert [e.weight for e in union([llm, replace(llm, query_id="q2")], [human])] == [2.0, 0.5]

    class Weighted(LabelSource):
        def stages(self, context: LabelContext) -> list[Stage]:
            return [Stage("own", [llm], 1, "all")]

    (stage,) = Curriculum({"first": {"source": Weighted(), "epochs": 2}}).stages(context)
    assert stage.examples[0].weight == 0.5


@pytest.mark.parametrize(
    ("weights", "fault"),
    [((1.0, math.nan), "'q1' has weight=nan"), ((math.inf, 1.0), "'q0' has weight=inf"), ((1.0, -0.5), "'q1' has weight=-0.5"),
     ((0.0, 0.0), "all 2 queries have weight 0")],
)  # fmt: skip
def test_weights_that_make_no_sense_are_refused(weights: tuple[float, ...], fault: str):
    examples = [Example(f"q{n}", ("d1",), ("d2",), "llm", weight=w) for n, w in enumerate(weights)]
    with pytest.raises(UserError, match=f"stage llm: .*{fault}"):
        Stage("llm", examples, 1, "all")


def test_a_loss_without_weights_learns_from_equal_ones_alone():
    def plain(scores: object, targets: object, valid: object) -> None: ...

    examples = [Example(f"q{n}", ("d1",), ("d2",), "llm", weight=0.5) for n in range(2)]
    Stage("llm", [*examples, replace(examples[0], weight=0.0)], 1, "all").check(plain)
    with pytest.raises(UserError, match="loss=plain has no argument weights"):
        Stage("llm", [*examples, replace(examples[0], weight=0.25)], 1, "all").check(plain)


def test_union_tells_of_every_pair_who_said_so(context: LabelContext):
    (stage,) = MixedLabels(human_frac=1, strategy="union").stages(context)
    assert sorted(pairs_of(stage, "q1"))[:2] == [("d1", 1, "human", -0.9), ("d2", 1, "llm", -0.5)]
    assert ("d2", 1, "human+llm", -0.1) in pairs_of(stage, "q2")
    assert ("d3", 1, "human", None) in pairs_of(stage, "q3")


def test_a_union_has_the_utilities_of_the_llm_alone():
    llm = Example("q1", ("d1",), ("d2",), "llm", utility=(-0.1, -2.0))
    human = [Example(q, ("d1",), ("d3",), "human", utility=(3, None)) for q in ("q1", "q2")]  # grades, of another unit
    found = {e.query_id: e.utilities() for e in union([llm], human)}
    assert found == {"q1": {"d1": -0.1, "d2": -2.0}, "q2": {}}


def test_the_stage_on_human_labels_may_have_its_own_rate_and_loss(context: LabelContext):
    llm, human = MixedLabels(human_frac=1, human_learning_rate=1e-6, human_loss=contrastive).stages(context)
    assert (llm.learning_rate, llm.loss) == (None, None) and (human.learning_rate, human.loss) == (1e-6, contrastive)


def test_the_human_budget_goes_to_the_queries_of_which_the_llm_is_least_sure(context: LabelContext):
    for share, expected in ((0.34, ["q2"]), (0.67, ["q1", "q2"]), (1, ["q1", "q2", "q3"])):
        stage = MixedLabels(human_frac=share, allocation="uncertainty").stages(context)[1]
        assert [e.query_id for e in stage.examples] == expected
        for source in (MixedLabels, HumanLabels):  # acquire= says the same
            stage = source(human_frac=share, acquire=UncertaintyAcquisition()).stages(context)[-1]
            assert [e.query_id for e in stage.examples] == expected
    random = MixedLabels(human_frac=0.67, allocation="random", acquire=UncertaintyAcquisition()).stages(context)[1]
    assert random == MixedLabels(human_frac=0.67).stages(context)[1]
    with pytest.raises(UserError, match="no noted doubt to take disagreement from"):
        MixedLabels(allocation="uncertainty", uncertainty="disagreement").stages(context)
    with pytest.raises(UserError, match="allowed: random, uncertainty; choose others with acquire=NAME"):
        MixedLabels(allocation="guess").stages(context)


def test_qa_metric_makes_soft_labels_and_takes_the_best_as_positive(context: LabelContext):
    (stage,) = QAMetricLabels().stages(context)
    assert pairs_of(stage, "q3") == [("d6", 1, "qa_metric", -0.1)]
    assert pairs_of(stage, "q2")[0] == ("d2", 1, "qa_metric", -0.1) and len(pairs_of(stage, "q2")) == 3
    stage.check(kl)
    bare = replace(context, judgements=lambda: {"q1": [Judgement("d1", 1, 1, None, 1)]})
    with pytest.raises(UserError, match="answer_likelihood"):
        QAMetricLabels().stages(bare)


def test_a_loss_for_soft_labels_is_refused_where_there_are_only_yes_and_no(context: LabelContext):
    (stage,) = HumanLabels().stages(context)
    with pytest.raises(UserError, match="loss=kl needs graded or soft labels"):
        stage.check(kl)
    stage.check(contrastive)


def test_queries_that_a_loss_for_soft_labels_learns_nothing_of_are_counted(
    context: LabelContext, caplog: pytest.LogCaptureFixture
) -> None:
    judged = dict(context.judgements())
    (stage,) = MixedLabels(human_frac=1.0, strategy="union").stages(replace(context, judgements=lambda: {"q2": judged["q2"]}))
    for one in (stage, replace(stage, examples=list(stage.examples))):
        one.check(kl)
        assert "Stage union: 2 of 3 queries have no graded or soft labels, and loss=kl learns nothing of them" in caplog.text
        caplog.clear()
        one.check(contrastive)
        assert not caplog.text


def test_human_grades_are_utilities_where_there_are_several(folder: Path, context: LabelContext):
    (folder / "qrels" / "train.tsv").write_text("q1\td1\t2\nq1\td2\t1\nq1\td5\t0\nq2\td2\t1\n")
    graded = replace(context, collection=open_collection(f"local:{folder}:train"))
    (stage,) = HumanLabels().stages(graded)
    assert pairs_of(stage, "q1") == [("d1", 1, "human", 2), ("d2", 1, "human", 1), ("d5", 0, "human", 0)]
    assert ("d5", 0, "human", None) in pairs_of(stage, "q2")


def test_average_is_the_mean_number_of_positives_of_the_stage():
    examples = [Example(f"q{i}", tuple("abcde"[: 1 + i]), ("z",), "llm") for i in range(4)]
    assert Stage("s", examples, 1, "average").most_positives == 2
    assert (Stage("s", examples, 1, "one").most_positives, Stage("s", examples, 1, "all").most_positives) == (1, None)


def test_a_curriculum_has_stages_of_any_source_with_their_own_settings(context: LabelContext):
    source = Curriculum(
        {
            "warm": {"source": LLMLabels(), "epochs": 3, "loss": kl, "positives": None},
            "human": {"source": HumanLabels(), "learning_rate": 1e-6, "passages_per_query": 2},
            "gone": None,
        }
    )
    warm, human = source.stages(context)
    assert (warm.name, warm.epochs, warm.loss, warm.positives, warm.learning_rate) == ("warm", 3, kl, "all", None)
    assert (human.name, human.learning_rate, human.passages_per_query, human.epochs) == ("human", 1e-6, 2, 1)
    (a, b) = Curriculum({"x": {"source": MixedLabels(human_frac=1)}}).stages(context)
    assert (a.name, b.name) == ("x-llm", "x-human")
    for stages, fault in (
        ({}, "empty"),
        ({"x": {"epochs": 1}}, "no source"),
        ({"x": {"source": LLMLabels(), "lr": 1}}, "'lr'"),
    ):
        with pytest.raises(UserError, match=fault):
            Curriculum(stages)


def test_several_annotators_are_joined(context: LabelContext):
    other = {"q1": [Judgement("d1", 1, 1, None, 1), Judgement("d2", 1, 1, None, 2)], "q9": [Judgement("d1", 0, 0, None, 1)]}
    joined = {rule: combine({"first": JUDGED, "other": other}, rule) for rule in ("any", "majority", "all")}
    positives = {rule: {j.doc_id for j in found["q1"] if j.label} for rule, found in joined.items()}
    assert positives == {"any": {"d1", "d2"}, "majority": {"d2"}, "all": {"d2"}}  # d1 is yes and no
    first, second = joined["any"]["q1"]
    assert (first.rank, second.rank) == (1, 2) and {first.by, second.by} == {"first+other", "other"}
    assert {j.doc_id: j.uncertainty for j in joined["any"]["q1"]} == {"d1": 1.0, "d2": 0.0}
    assert {j.uncertainty for j in joined["any"]["q9"]} == {None}  # one vote has nothing to agree with
    assert set(joined["any"]) == {"q1", "q2", "q3", "q9"}
    (stage,) = LLMLabels().stages(replace(context, judgements=lambda: joined["any"]))
    assert ("d1", 1, "llm:other", 0.5) in pairs_of(stage, "q1")
    with pytest.raises(UserError, match="any, majority, all"):
        combine({"first": JUDGED}, "some")


def test_a_passage_that_not_all_judged_has_no_label_where_the_others_could_turn_it(caplog: pytest.LogCaptureFixture):
    """One letter an annotator: y(es), n(o) or - for not judged."""
    wanted = {
        "any": {"yy": 1, "yn": 1, "nn": 0, "y-": 1, "n-": 0, "yyn": 1, "y--": 1},
        "majority": {"yy": 1, "yn": 0, "nn": 0, "y-": None, "n-": 0, "yyn": 1, "yy-": 1, "yn-": None, "nn-": 0, "y--": None},
        "all": {"yy": 1, "yn": 0, "nn": 0, "y-": None, "n-": 0, "yyn": 0, "yy-": None, "yyy": 1},
    }
    caplog.set_level(logging.INFO)
    for rule, cases in wanted.items():
        for votes, label in cases.items():
            judged = {
                str(n): {"q": [Judgement("d", int(v == "y"), int(v == "y"), None, 1)]} if v != "-" else {}
                for n, v in enumerate(votes)
            }
            found = combine(judged, rule)
            assert [j.label for j in found.get("q", [])] == ([] if label is None else [label]), (rule, votes)
            assert ("q" in found) == (label is not None)
    assert "combine=all: 1 of 1 passages have no label, since not all of the 2 annotators judged them" in caplog.text


def test_people_whose_positives_stand_in_the_pools_of_an_llm_are_told(context: LabelContext, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    LLMLabels().stages(context)
    assert "pools hold a passage that people judged positive" in caplog.text
    caplog.clear()
    LLMLabels().stages(replace(context, collection=replace(context.collection, qrels={})))
    assert "people judged" not in caplog.text
