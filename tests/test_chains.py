"""Chains of calls over a scripted engine: what is asked, what is kept, and what is made of the replies."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from scripted import BEES, POOL, Scripted, kept, many, nat_by_passage, replies, run, stage_of

from uar.annotation.annotators import Annotator, Judgement, Likelihood, Pointwise, RelSel, UtilSel
from uar.errors import UserError
from uar.llm.call import Question
from uar.llm.engines.work import Work
from uar.llm.failing import lower_bound, stop_where_too_many_failed
from uar.llm.progress import Progress
from uar.llm.prompts.template import packaged
from uar.llm.record import Outcome, Record, Reply, Request, Score

RANKS = Likelihood(template="likelihood_question", rule="margin", threshold=0.0)
GOOD = replies(relsel="My selection:[[2],[1],[4]]", pseudo_answer="They make honey.", utilsel="My selection:[[2],[3]]")


def utilsel(**changes: Any) -> UtilSel:
    return UtilSel(**({"template": "utilsel"} | changes))


def test_utilsel_grades_useful_relevant_and_other_passages(tmp_path: Path) -> None:
    engine = Scripted(GOOD)
    judged, _ = run(tmp_path, utilsel(), engine)
    assert judged == {
        "q1": [
            Judgement("d1", 1, 2, None, 1),
            Judgement("d4", 1, 2, None, 2),
            Judgement("d2", 0, 1, None, 3),
            Judgement("d3", 0, 0, None, 4),
        ]
    }
    assert [stage_of(r) for r in engine.asked] == ["relsel", "pseudo_answer", "utilsel"]
    assert "Reference answer: They make honey." in engine.asked[-1].messages[-1][1]
    assert {r.stage: r.doc_ids for r in kept(tmp_path, *utilsel().stages)} == {
        "relsel": ("d1", "d2", "d3", "d4"),
        "pseudo_answer": ("d2", "d1", "d4"),
        "utilsel": ("d2", "d1", "d4"),
    }


def test_nothing_more_is_asked_where_relsel_selects_nothing(tmp_path: Path) -> None:
    engine = Scripted(replies(relsel="My selection:[]"))
    judged, chains = run(tmp_path, utilsel(), engine)
    assert [stage_of(r) for r in engine.asked] == ["relsel"]
    assert [(j.label, j.grade) for j in judged["q1"]] == [(0, 0)] * 4
    assert not chains.progress.failures


@pytest.mark.parametrize(
    ("stage", "reply", "outcome"),
    [
        ("relsel", "The first one.", Outcome.UNPARSABLE),
        ("relsel", "My selection:[[5]]", Outcome.OUT_OF_RANGE),
        ("relsel", "", Outcome.EMPTY),
        ("relsel", Reply("My selection:[[1],", Outcome.TRUNCATED), Outcome.TRUNCATED),
        ("pseudo_answer", " ", Outcome.EMPTY),
        ("utilsel", "I'm sorry, I cannot judge that.", Outcome.REFUSED),
        ("utilsel", Reply("500", Outcome.ERROR), Outcome.ERROR),
    ],
)
def test_a_failed_reply_gives_no_label_and_is_listed(tmp_path: Path, stage: str, reply: str | Reply, outcome: Outcome) -> None:
    engine = Scripted(lambda r: reply if stage_of(r) == stage and "bees" in r.messages[-1][1] else GOOD(r))
    judged, chains = run(tmp_path, utilsel(), engine, [BEES, *many(3)])
    assert sorted(judged) == ["m0", "m1", "m2"]
    (failure,) = chains.progress.failures
    assert (failure.query_id, failure.stage, failure.outcome) == ("q1", stage, outcome)
    (record,) = [r for r in kept(tmp_path, *utilsel().stages) if r.outcome != Outcome.OK]
    assert (record.query_id, record.outcome) == ("q1", outcome)


def test_a_failed_score_leaves_its_passage_without_a_label(tmp_path: Path) -> None:
    good = nat_by_passage({"d1": -1.0, "d2": -2.0, "d3": -3.0, "d4": -4.0})
    bad = Question("bad", "what is lost", POOL)
    engine = Scripted(lambda r: Reply("503", Outcome.ERROR) if "lost" in r.target and "violin" in r.prefix else good(r))
    judged, chains = run(tmp_path, RANKS, engine, [bad, BEES])
    assert {q: [(j.doc_id, j.label) for j in js] for q, js in judged.items()} == {
        "bad": [("d1", 1), ("d2", 0), ("d4", 0)],
        "q1": [("d1", 1), ("d2", 0), ("d3", 0), ("d4", 0)],
    }
    assert [(f.query_id, f.doc_ids) for f in chains.progress.failures] == [("bad", ("d3",))]
    assert run(tmp_path, RANKS, None, [bad, BEES])[0] == judged  # what training reads


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path, value: float) -> None:
    judged, chains = run(tmp_path, RANKS, Scripted(lambda r: Reply.of_score(value, 2)))
    assert judged == {}
    assert [f.outcome for f in chains.progress.failures] == [Outcome.UNPARSABLE] * 4


def failing(share: int) -> Scripted:
    """One of `share` questions gets prose."""
    return Scripted(lambda r: "prose" if number_of(r) % share == 0 else "My selection:[]", window=1)


def number_of(request: Request) -> int:
    return int(re.findall(r"question (\d+)", request.messages[-1][1])[0])


def test_a_failure_rate_beyond_doubt_stops_the_run_and_keeps_its_records(tmp_path: Path) -> None:
    engine = failing(2)
    with pytest.raises(UserError, match="max_failure_rate=0.1") as error:
        run(tmp_path, utilsel(), engine, many(200), max_failure_rate=0.1)
    assert "unparsable" in str(error.value) and "llm.constrain=true or json_schema" in str(error.value)
    assert len(engine.asked) == len(kept(tmp_path, "relsel")) == 50
    judged, chains = run(tmp_path, utilsel(), engine, many(200), max_failure_rate=1.0)
    assert len(engine.asked) == 200 and chains.progress.total.kept == 50
    assert len(judged) == 200 - len(chains.progress.failures) == 100


def test_a_rate_that_chance_may_have_made_does_not_stop_the_run(tmp_path: Path) -> None:
    judged, chains = run(tmp_path, utilsel(), failing(6), many(90), max_failure_rate=0.1)
    assert (len(judged), len(chains.progress.failures)) == (75, 15)


def test_the_lower_end_of_a_rate_is_that_of_wilson() -> None:
    assert lower_bound(10, 100) == pytest.approx(0.0407, abs=1e-4)  # (0.1 + 0.045 - 3 sqrt(0.0009 + 0.000225)) / 1.09
    assert lower_bound(0, 50) == pytest.approx(0.0) and lower_bound(50, 50) == pytest.approx(50 / 59)


@pytest.mark.parametrize(
    ("outcomes", "advice"),
    [
        ([Outcome.ERROR, Outcome.ERROR, Outcome.UNPARSABLE], "the key, llm.model"),
        ([Outcome.TRUNCATED], "selection_tokens"),
        ([Outcome.EMPTY, Outcome.OUT_OF_RANGE, Outcome.OUT_OF_RANGE], "llm.constrain=true or json_schema"),
    ],
)
def test_the_rate_of_a_whole_run_is_judged_as_it_is_and_told_by_what_failed_most(
    tmp_path: Path, outcomes: list[Outcome], advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, chains = run(tmp_path, utilsel(), failing(100), many(1))
    records = [replace(chains.progress.failures[0], outcome=outcome) for outcome in outcomes]
    few, enough = (Progress(calls=calls, failures=records) for calls in (5, 50))
    stop_where_too_many_failed(few, 0.1)
    assert "of 5 calls failed" in caplog.text and advice in caplog.text
    with pytest.raises(UserError, match="of 50 calls failed") as error:
        stop_where_too_many_failed(enough, 0.01)
    assert advice in str(error.value)
    stop_where_too_many_failed(enough, 0.06)


@pytest.mark.parametrize("annotator", [utilsel(), RANKS], ids=["utilsel", "likelihood"])
def test_a_replay_without_an_engine_gives_equal_judgements(tmp_path: Path, annotator: Annotator) -> None:
    scores = nat_by_passage({"d1": -1.5, "d2": -2.25, "d3": -3.0, "d4": -1.5})
    engine = Scripted(lambda r: scores(r) if isinstance(r, Score) else GOOD(r))
    judged, _ = run(tmp_path, annotator, engine, [BEES, *many(5)])
    assert len(judged) == 6
    replayed, chains = run(tmp_path, annotator, None, [BEES, *many(5)])
    assert replayed == judged
    assert chains.progress.total.asked == 0


def test_a_replay_leaves_out_what_would_have_to_be_asked(tmp_path: Path) -> None:
    run(tmp_path, utilsel(), Scripted(GOOD), [BEES])
    new = Question("new", "why is the sky blue", POOL)
    replayed, _ = run(tmp_path, utilsel(), None, [new, BEES])
    assert list(replayed) == ["q1"]


def test_a_second_run_asks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    twin = Question("twin", BEES.text, POOL)
    first, _ = run(tmp_path, utilsel(), Scripted(GOOD), [BEES, twin])
    before = sorted(p.name for p in tmp_path.iterdir())
    for _ in range(2):
        engine = Scripted(GOOD)
        again, chains = run(tmp_path, utilsel(), engine, [BEES, twin])
        assert again == first
        assert (engine.asked, chains.progress.total.asked, chains.progress.total.kept) == ([], 0, 6)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_errors_alone_are_asked_again(tmp_path: Path) -> None:
    down = Scripted(replies(relsel="My selection:[[1]]", pseudo_answer=Reply("503", Outcome.ERROR)))
    assert run(tmp_path, utilsel(), down)[0] == {}
    up = Scripted(replies(pseudo_answer="Honey.", utilsel="My selection:[[1]]"))
    judged, _ = run(tmp_path, utilsel(), up)
    assert [stage_of(r) for r in up.asked] == ["pseudo_answer", "utilsel"]
    assert [j.doc_id for j in judged["q1"] if j.label] == ["d1"]


def test_kept_failures_are_asked_again_where_that_is_wanted_and_the_new_reply_counts(tmp_path: Path) -> None:
    twin = Question("twin", BEES.text, POOL)
    run(tmp_path, utilsel(), Scripted(replies(relsel="prose")), [BEES, twin])
    still = Scripted(replies(relsel="more prose"))
    assert run(tmp_path, utilsel(), still, [BEES, twin], retry=["empty"])[0] == {} and still.asked == []
    assert run(tmp_path, utilsel(), still, [BEES, twin], retry=["unparsable"])[0] == {}
    assert len(still.asked) == 1  # in a run a reply is asked for again once
    engine = Scripted(GOOD)
    judged, _ = run(tmp_path, utilsel(), engine, [BEES, twin], retry=["unparsable", "empty"])
    assert [stage_of(r) for r in engine.asked] == ["relsel", "pseudo_answer", "utilsel"] and len(judged) == 2
    assert run(tmp_path, utilsel(), None, [BEES, twin])[0] == judged  # what training reads
    again = Scripted(GOOD)
    assert run(tmp_path, utilsel(), again, [BEES, twin], retry=["unparsable"])[0] == judged and again.asked == []
    outputs = [r.output for part in tmp_path.glob("*.parquet") for r in map(Record.from_row, pq.read_table(part).to_pylist())]
    assert outputs.count("prose") == 1 and "more prose" in outputs  # nothing is thrown away
    assert [r.outcome for r in kept(tmp_path, "relsel")] == [Outcome.OK]


def test_a_replay_reads_errors_as_failures(tmp_path: Path) -> None:
    answer = nat_by_passage({"d1": -1.0, "d2": -2.0, "d3": -3.0, "d4": -4.0})
    down = Scripted(lambda r: Reply("503", Outcome.ERROR) if "violin" in r.prefix else answer(r))
    run(tmp_path, RANKS, down)
    _, chains = run(tmp_path, RANKS, None)
    assert [f.outcome for f in chains.progress.failures] == [Outcome.ERROR]


def test_an_unparsable_reply_is_not_asked_again(tmp_path: Path) -> None:
    run(tmp_path, utilsel(), Scripted(replies(relsel="prose")))
    engine = Scripted(GOOD)
    judged, chains = run(tmp_path, utilsel(), engine)
    assert (judged, engine.asked) == ({}, [])
    assert [f.outcome for f in chains.progress.failures] == [Outcome.UNPARSABLE]


def test_a_changed_utilsel_template_asks_utilsel_alone(tmp_path: Path) -> None:
    run(tmp_path / "store", utilsel(), Scripted(GOOD), [BEES, *many(2)])
    changed = tmp_path / "strict.yaml"
    changed.write_text(packaged("prompts")["utilsel"].read_text().replace("Take as many", "Be strict. Take as many"))
    engine = Scripted(GOOD)
    judged, _ = run(tmp_path / "store", utilsel(template=str(changed)), engine, [BEES, *many(2)])
    assert [stage_of(r) for r in engine.asked] == ["utilsel"] * len(judged) != []
    assert all("Be strict." in r.messages[-1][1] for r in engine.asked)


def test_a_changed_relsel_template_asks_the_whole_chain_again(tmp_path: Path) -> None:
    changed = tmp_path / "other.yaml"
    changed.write_text(packaged("prompts")["relsel"].read_text().replace("Noted", "Read"))
    run(tmp_path / "store", utilsel(), Scripted(GOOD))
    answer = replies(relsel="My selection:[[1]]", pseudo_answer="Honey.", utilsel="My selection:[[1]]")
    engine = Scripted(answer)
    run(tmp_path / "store", utilsel(relsel_template=str(changed)), engine)
    assert [stage_of(r) for r in engine.asked] == ["relsel", "pseudo_answer", "utilsel"]


def test_identical_requests_in_flight_are_asked_and_kept_once(tmp_path: Path) -> None:
    twin = Question("twin", BEES.text, POOL)
    engine = Scripted(GOOD, window=8)
    judged, chains = run(tmp_path, utilsel(), engine, [BEES, twin])
    assert [stage_of(r) for r in engine.asked] == ["relsel", "pseudo_answer", "utilsel"]
    assert judged["q1"] == judged["twin"]
    records = kept(tmp_path, *utilsel().stages)
    assert sorted(r.stage for r in records) == sorted(utilsel().stages)
    assert run(tmp_path, utilsel(), None, [BEES, twin])[0] == judged
    assert sum(r.tokens_in for r in records) == chains.progress.total.tokens["tokens_in"] == 30


def test_one_text_under_two_query_ids_is_answered_for_both_from_the_store(tmp_path: Path) -> None:
    run(tmp_path, utilsel(), Scripted(GOOD), [BEES])
    engine = Scripted(GOOD)
    judged, _ = run(tmp_path, utilsel(), engine, [Question("twin", BEES.text, POOL)])
    assert engine.asked == [] and list(judged) == ["twin"]
    assert [r.query_id for r in kept(tmp_path, "relsel")] == ["q1"]


def test_no_more_questions_are_started_than_the_window_asks(tmp_path: Path) -> None:
    engine = Scripted(GOOD, window=3)
    judged, chains = run(tmp_path, utilsel(), engine, many(20))
    assert engine.most == 3
    assert chains.progress.total.asked == 60 and len(judged) == 20


def test_passages_are_cut_to_max_words(tmp_path: Path) -> None:
    engine = Scripted(replies(relsel="My selection:[]"))
    run(tmp_path, UtilSel(template="utilsel", max_words=3), engine)
    shown = [text for role, text in engine.asked[0].messages if text.startswith("[")]
    assert shown == ["[1] Bees make honey", "[2] Bees live in", "[3] A violin has", "[4] Honey keeps for"]


@pytest.mark.parametrize(
    ("annotator", "option"),
    [
        (UtilSel, "max_words=0"),
        (RelSel, "max_words=-5"),
        (RelSel, "selection_tokens=0"),
        (RelSel, "temperature=-1.0"),
        (RelSel, "temperature=nan"),
        (RelSel, "sample=-1"),
        (RelSel, "reasoning_tokens=-1"),
        (UtilSel, "answer_tokens=0"),
        (Likelihood, "max_words=0"),
        (Pointwise, "max_words=0"),
        (Pointwise, "calibration_queries=-1"),
    ],
)
def test_numbers_by_which_nothing_can_be_asked_are_refused(annotator: type[Annotator], option: str) -> None:
    name, _, value = option.partition("=")
    template = "likelihood_question" if annotator is Likelihood else annotator.__name__.lower()
    with pytest.raises(UserError, match=f"{option}.*a number .*is needed"):
        annotator(template=template, **{name: float(value) if "temperature" in name else int(value)})


@pytest.mark.parametrize("rate", [-0.1, 5, math.nan])
def test_a_rate_of_failures_that_is_no_share_is_refused(tmp_path: Path, rate: float) -> None:
    with pytest.raises(UserError, match="max_failure_rate=.*a share of the calls from 0 to 1"):
        Work(utilsel(), [], [], tmp_path, rate)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one two  three four five", "one two three four"),
        ("one two\nthree four ", "one two\nthree four "),
        ("蜜蜂酿造蜂蜜", "蜜蜂酿造"),
        ("みつばちが", "みつばち"),
        ("GPU 加速 计算", "GPU 加速 计"),
        ("꿀벌은 꿀을 만든다", "꿀벌은 꿀을 만든다"),
    ],
)
def test_a_cut_counts_words_or_characters_where_there_are_no_spaces(text: str, shown: str) -> None:
    assert utilsel(max_words=4).cut(text) == shown
