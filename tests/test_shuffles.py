"""List-wise judges that are shown a pool in several orders, and whether they prefer a place."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import BEES, POOL, Scripted, many, replies, run, shown_passages

from uar.annotation.annotators import Ensemble, Imported, Judgement, Pointwise, QAMetric, RelSel, UtilRank
from uar.annotation.quality.positions import by_position
from uar.annotation.quality.quality_report import quality
from uar.collections import open_collection
from uar.errors import UserError
from uar.llm.record import Outcome, Reply, Request
from uar.storage.files import read_json

RELSEL = RelSel(template="relsel")
SHUFFLED = Ensemble(RELSEL, shuffles=4)
POOLS = {q.id: list(q.passages) for q in many(60)}


def shown(request: Request) -> list[str]:
    """Passage ids in the order shown."""
    ids = {text: d for d, text in POOL.items()}
    return [ids[text] for text in shown_passages(request.messages).values()]


def test_each_order_is_asked_once_and_the_first_is_the_pool_as_it_is(tmp_path: Path) -> None:
    first = lambda request: "My selection:[[1]]"  # noqa: E731
    run(tmp_path, RELSEL, Scripted(first))
    engine = Scripted(first)
    judged, chains = run(tmp_path, SHUFFLED, engine)
    assert (len(engine.asked), chains.progress.total.kept) == (3, 1)
    orders = SHUFFLED.orders("q1", list(POOL))
    assert orders[0] == list(POOL) and sorted(map(shown, engine.asked)) == sorted(orders[1:])
    assert all(sorted(order) == sorted(POOL) for order in orders) and len({tuple(order) for order in orders}) > 2
    votes = {d: tuple(int(order[0] == d) for order in orders) for d in POOL}
    assert {j.doc_id: (j.score, j.votes) for j in judged["q1"]} == {d: (sum(v) / 4, v) for d, v in votes.items()}
    again = Scripted(first)
    assert run(tmp_path, SHUFFLED, again)[0] == judged and not again.asked


def test_orders_differ_between_questions_and_follow_the_order_of_the_pool() -> None:
    drawn = {tuple(SHUFFLED.orders(q, pool)[1]) for q, pool in POOLS.items()}
    assert len(drawn) > 12  # of 24
    backwards = SHUFFLED.orders("q1", list(POOL)[::-1])
    assert backwards[0] == list(POOL)[::-1] and backwards != SHUFFLED.orders("q1", list(POOL))
    firsts = [SHUFFLED.orders(q, pool)[1][0] for q, pool in POOLS.items()]
    assert min(firsts.count(d) for d in POOL) > 5  # of 60


def test_a_judge_that_takes_what_it_sees_first_is_found_out(tmp_path: Path) -> None:
    judged, _ = run(tmp_path, SHUFFLED, Scripted(lambda request: "My selection:[[1]]"), many(60))
    rates = by_position(SHUFFLED, POOLS, judged)
    assert [(row["position"], row["passages"], row["positives"]) for row in rates] == [
        (1, 240, 1.0), (2, 240, 0.0), (3, 240, 0.0), (4, 240, 0.0)]  # fmt: skip


def test_a_judge_that_reads_has_no_preference(tmp_path: Path) -> None:
    def reads(request: Request) -> str:
        return f"My selection:[[{shown(request).index('d4') + 1}]]"

    judged, _ = run(tmp_path, SHUFFLED, Scripted(reads), many(60))
    assert {tuple(j.doc_id for j in js if j.label) for js in judged.values()} == {("d4",)}
    rates = [row["positives"] for row in by_position(SHUFFLED, POOLS, judged)]
    assert sum(rates) == pytest.approx(1.0) and 0.1 < min(rates) <= max(rates) < 0.5
    alone, _ = run(tmp_path, RELSEL, Scripted(reads), many(60))
    assert [row["positives"] for row in by_position(RELSEL, POOLS, alone)] == [0.0, 0.0, 0.0, 1.0]


def test_a_member_that_failed_counts_at_no_position(tmp_path: Path) -> None:
    fails = SHUFFLED.orders("q1", list(POOL))[2]

    def answer(request: Request) -> Reply | str:
        return Reply("", Outcome.ERROR) if shown(request) == fails else "My selection:[[1]]"

    judged, _ = run(tmp_path, SHUFFLED, Scripted(answer), max_failure_rate=1.0)
    assert {j.votes[2] for j in judged["q1"]} == {None}
    assert {row["passages"] for row in by_position(SHUFFLED, {"q1": list(POOL)}, judged)} == {3}


def test_shuffles_join_samples_and_models(tmp_path: Path) -> None:
    annotator = Ensemble(UtilRank(template="utilrank"), samples=2, models=2, shuffles=3, combine="mean_rank")
    every = replies(relsel="My selection:[[1],[2],[3],[4]]", pseudo_answer="Honey.", utilrank="[1] > [2] > [3] > [4]")
    engines = [Scripted(every), Scripted(every)]
    judged, _ = run(tmp_path, annotator, engines)
    assert [len([s for s in engine.stages if s == "relsel"]) for engine in engines] == [6, 6]
    assert {len(j.votes) for j in judged["q1"]} == {12}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shuffles": 1}, "annotator.samples=1 of 1 model(s), annotator.shuffles=1"),
        ({"shuffles": 0, "models": 2}, "annotator.shuffles=0"),
        (
            {"shuffles": 3, "member": Pointwise(template="pointwise")},
            "annotator.shuffles=3: Pointwise sees one passage",
        ),
        ({"shuffles": 3, "member": QAMetric(template="qa_metric")}, "annotator.shuffles=3: QAMetric sees one passage a call"),
    ],
)
def test_orders_that_change_nothing_are_refused_in_one_line(options: dict, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)) as error:
        Ensemble(**({"member": RELSEL} | options))
    assert "\n" not in str(error.value)


def test_votes_that_differ_are_no_majority_and_one_alone_has_no_agreement(tmp_path: Path) -> None:
    pair = [Scripted(replies(relsel=text)) for text in ("My selection:[[1],[2]]", "My selection:[[1]]")]
    judged, _ = run(tmp_path / "two", Ensemble(RELSEL, models=2), pair)
    assert {j.doc_id: (j.label, j.uncertainty) for j in judged["q1"]} == {
        "d1": (1, 0.0), "d2": (0, 1.0), "d3": (0, 0.0), "d4": (0, 0.0)}  # fmt: skip
    pair = [Scripted(replies(relsel=text)) for text in ("My selection:[[1],[2]]", "prose")]
    judged, _ = run(tmp_path / "one", Ensemble(RELSEL, models=2), pair, max_failure_rate=1.0)
    assert {(j.label, j.uncertainty) for j in judged["q1"]} == {(1, None), (0, None)}


def test_the_label_rate_by_position_is_written_beside_the_agreement(tmp_path: Path, folder: Path) -> None:
    collection = open_collection(f"local:{folder}:train")
    judged = {"q1": [Judgement("d2", 1, 1, None, 1), Judgement("d1", 0, 0, None, 2)]}
    pools = {"q1": ["d1", "d2"]}
    wanted = [{"position": 1, "passages": 1, "positives": 0.0}, {"position": 2, "passages": 1, "positives": 1.0}]
    for name, opened in (("judged", collection), ("unjudged", replace(collection, qrels={}))):
        found = quality(tmp_path, opened, RELSEL, pools, judged, None, None)
        assert found is not None and found["by_position"] == wanted == read_json(tmp_path / "agreement.json")["by_position"]
        assert ("precision" in found) == (name == "judged")
    assert by_position(Pointwise(template="pointwise"), pools, judged) == []
    path = tmp_path / "labels.qrels"
    path.write_text("q1 0 d1 1\n")
    assert by_position(Imported(str(path)), pools, judged) == []


def test_the_pool_that_a_question_brings_is_what_is_shuffled(tmp_path: Path) -> None:
    engine = Scripted(lambda request: "My selection:[]")
    run(tmp_path, SHUFFLED, engine, [BEES, replace(BEES, id="q2")])
    assert len(engine.asked) == len({r.key("m") for r in engine.asked}) <= 8
