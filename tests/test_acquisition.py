"""Which queries are labelled next."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hydra.utils import instantiate
from tiny_models import tiny_bert

from uar.acquisition import (
    Acquisition,
    AcquisitionContext,
    CoreSetAcquisition,
    DualAcquisition,
    IDDSAcquisition,
    ListedAcquisition,
    ModelMarginAcquisition,
    RandomAcquisition,
    UncertaintyAcquisition,
)
from uar.acquisition.acquisition import distinct
from uar.acquisition.uncertainty_acquisition import uncertainties
from uar.annotation.annotators import Judgement
from uar.annotation.assignment import asked_first
from uar.annotation.means import against_of
from uar.collections import Collection, open_collection
from uar.errors import DataError, UserError
from uar.labels.human import first_share, human_sample
from uar.launch.entry import composed
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.ranker import Pools
from uar.storage.ordering import best_first, rank_of
from uar.storage.runs import Run
from uar.training.context import label_context

QUERIES = [f"q{i}" for i in range(200)]
JUDGED = {
    "q1": [Judgement("d2", 1, 1, -0.5, 1), Judgement("d1", 0, 0, -0.9, 2)],
    "q2": [Judgement("d2", 1, 1, -0.1, 1), Judgement("d3", 1, 1, -0.2, 2), Judgement("d4", 0, 0, -3.0, 3)],
    "q3": [Judgement("d6", 0, 0, -0.1, 1)],
}
EACH = [RandomAcquisition(), UncertaintyAcquisition()]  # those that need no texts


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
    sure = {"q1": -0.4, "q2": -0.1}  # second score minus first: q3 has one passage only
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
    unknown = Judgement("c", 0, 0, 0.0, 3)  # as of one vote alone, which is not the same as sure
    assert uncertainties({"q": noted, "r": [noted[0], unknown], "s": [unknown]}) == {"q": 0.5, "r": 1.0}
    stated = [Judgement("a", 1, 1, 0.5, 1, logprobs=(math.log(0.1), math.log(0.3))), Judgement("b", 0, 0, 0.0, 2)]
    assert uncertainties({"q": stated}, "stated")["q"] == pytest.approx(0.25)  # 0.1 / 0.4: the other has none


def test_what_is_not_there_is_told():
    with pytest.raises(UserError, match="needs an LLM's judgements"):
        UncertaintyAcquisition().order(AcquisitionContext(QUERIES, 0))
    with pytest.raises(UserError, match="needs the texts of the queries"):
        IDDSAcquisition(BM25Ranker).order(AcquisitionContext(QUERIES, 0))
    with pytest.raises(UserError, match="needs the passages"):
        ModelMarginAcquisition(BM25Ranker).order(AcquisitionContext(QUERIES, 0))
    mini = open_collection("mini:dev")
    with pytest.raises(UserError, match="needs the queries' candidates"):
        ModelMarginAcquisition(BM25Ranker).order(AcquisitionContext(list(mini.queries), 0, collection=mini))
    with pytest.raises(UserError, match="makes no vectors of queries"):
        CoreSetAcquisition(BM25Ranker).order(AcquisitionContext(list(mini.queries), 0, collection=mini))
    for wrong in (lambda: IDDSAcquisition(BM25Ranker, 2.0), lambda: DualAcquisition(BM25Ranker, window=0)):
        with pytest.raises(UserError, match="acquire"):
            wrong()
    with pytest.raises(UserError, match="no probabilities of grades to take stated from"):
        UncertaintyAcquisition("stated").order(context())
    with pytest.raises(UserError, match="allowed: auto, disagreement, margin, entropy, stated"):
        UncertaintyAcquisition("doubt").order(context())


@pytest.fixture(scope="module")
def of_mini(tmp_path_factory: pytest.TempPathFactory) -> tuple[AcquisitionContext, BiEncoder]:
    """The dev questions of mini, one of them labelled, with pools, judgements and an encoder of random weights."""
    mini, encoder = open_collection("mini:dev"), BiEncoder(str(tiny_bert(tmp_path_factory.mktemp("m") / "tiny")))
    pools = {q: list(mini.qrels[q])[:8] for q in mini.queries}
    judged = {q: [Judgement(d, 1, 1, float(len(d) + at), at + 1) for at, d in enumerate(p)] for q, p in pools.items()}
    first = frozenset(list(mini.queries)[:1])
    return AcquisitionContext(
        list(mini.queries), 3, first, lambda: judged, lambda ids: {q: pools[q] for q in ids}, mini
    ), encoder


def test_orders_by_texts_and_scores_are_nested_and_follow_no_file(of_mini: tuple[AcquisitionContext, BiEncoder]):
    context, encoder = of_mini
    for make in (IDDSAcquisition, CoreSetAcquisition, partial(DualAcquisition, window=4), ModelMarginAcquisition):
        acquisition = make(lambda: encoder)
        order = acquisition.order(context)
        assert sorted(order) == sorted(context.unlabelled) and order != context.unlabelled
        assert acquisition.order(replace(context, query_ids=context.query_ids[::-1])) == order
        for wanted in (1, 9, 10):
            assert acquisition.order(replace(context, wanted=wanted))[:wanted] == order[:wanted]


def test_dual_takes_the_least_sure_of_the_next_of_idds_and_draws_some(of_mini: tuple[AcquisitionContext, BiEncoder]):
    context, encoder = of_mini
    typical = IDDSAcquisition(lambda: encoder).order(context)
    assert DualAcquisition(lambda: encoder, window=1, random_every=0).order(context) == typical
    doubtful = UncertaintyAcquisition().order(context)
    assert DualAcquisition(lambda: encoder, window=1000, random_every=0).order(context) == doubtful
    assert DualAcquisition(lambda: encoder, random_every=1).order(context) == context.drawn
    assert min(typical[:5], key=doubtful.index) == DualAcquisition(lambda: encoder, window=5).order(context)[0]


def test_the_smallest_margin_of_the_model_comes_first(of_mini: tuple[AcquisitionContext, BiEncoder]):
    context, encoder = of_mini
    alone = replace(context, pools=lambda ids: {q: context.pools([q])[q][: 1 if q == ids[0] else 8] for q in ids})
    order = ModelMarginAcquisition(lambda: encoder).order(alone)
    run = encoder.score(context.collection, context.pools(order[:2]))
    first, second = (run[q][0][1] - run[q][1][1] for q in order[:2])
    assert first <= second and order[-1] == context.drawn[0]


def test_a_copy_of_the_best_passage_is_no_close_second(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "copy", "title": "", "text": "The heart pumps blood through the body."}\n')  # that of d1
    toy = open_collection(f"local:{folder}:test")
    scores = {"q1": {"d1": -0.1, "copy": -0.1, "d2": -3.0}, "q2": {"d1": -0.1, "d2": -0.5}}
    judged = {q: [Judgement(d, 1, 1, s, n) for n, (d, s) in enumerate(of.items(), start=1)] for q, of in scores.items()}
    pools = {q: list(of) for q, of in scores.items()}
    asked = AcquisitionContext(list(scores), 0, frozenset(), lambda: judged, lambda ids: {q: pools[q] for q in ids}, toy)

    class Given(BM25Ranker):
        def score(self, collection: Collection, pools: Pools) -> Run:
            return {q: best_first((d, scores[q][d]) for d in pool) for q, pool in pools.items()}

    for acquisition in (UncertaintyAcquisition("margin"), UncertaintyAcquisition("entropy"), ModelMarginAcquisition(Given)):
        assert acquisition.order(asked) == ["q2", "q1"]
        assert acquisition.order(replace(asked, query_ids=["q1"])) == ["q1"]
    assert distinct(toy.corpus, {"q1": ["d2", "nowhere", "copy", "d1", "else"], "q2": [], "q3": ["d1"]}) == {
        "q1": [0, 1, 2, 4], "q2": [], "q3": [0],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["first", "idds", "dual", "core_set", "model_margin"])
def test_every_kind_chooses_for_people_and_for_the_llm(
    kind: str, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    model = [f"acquire.{tiny[0]}", "acquire.retriever.layers=null"] if kind != "first" else []
    train = composed("train", f"acquire={kind}", *model)
    assert isinstance(instantiate(train.label_source, _convert_="all").acquire, Acquisition)
    mini = open_collection("mini:dev")
    annotate = composed("annotate", "limit=5", f"acquire={kind}", "against=labels.tsv" if kind == "dual" else "seed=1", *model)
    Path("labels.tsv").write_text("".join(f"{q}\t{d}\t1\n" for q in mini.queries for d in mini.positives(q)))
    if kind == "dual":
        with pytest.raises(UserError, match="no scores to take margin from"):
            asked_first(annotate, mini, against_of(annotate))
        return
    chosen = asked_first(annotate, mini, against_of(annotate))
    assert len(chosen) == 5 and (chosen == list(mini.queries)[:5]) == (kind == "first")
    annotate.limit = 6
    assert asked_first(annotate, mini, against_of(annotate))[:5] == chosen


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


def test_where_all_that_is_listed_has_labels_the_others_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "listed.jsonl"
    path.write_text('{"query_id": "b"}\n{"query_id": "elsewhere"}\n')
    every = ["a", "b", "c"]
    assert ListedAcquisition(str(path)).order(AcquisitionContext(every, 0))[0] == "b"
    left = AcquisitionContext(every, 0, frozenset("b"))
    assert ListedAcquisition(str(path)).order(left) == left.drawn
    with pytest.raises(DataError, match="none of its 2 queries is among the 1 to choose from"):
        ListedAcquisition(str(path)).order(AcquisitionContext(["a"], 0))


def test_what_people_are_yet_to_say_does_not_choose_the_questions_of_a_training(tmp_path: Path):
    encoder = BiEncoder(str(tiny_bert(tmp_path / "tiny")))
    mini = open_collection("mini:train")
    query_ids = mini.head(24)
    others = [mini.qrels[q] for q in query_ids[1:] + query_ids[:1]]  # of another question each
    cfg = composed("train", "limit=24")
    chosen = []
    for of in (mini, replace(mini, qrels=dict(zip(query_ids, others, strict=True)))):
        context = label_context(cfg, of, instantiate(cfg.candidates), tmp_path, [])
        chosen.append(human_sample(context, 0.25, ModelMarginAcquisition(lambda: encoder)))
    assert chosen[0] == chosen[1] and len(chosen[0]) == 6
