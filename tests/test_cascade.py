"""Cascades: the second annotator is asked about what the first doubts, and about nothing else."""

import json
import math
from pathlib import Path

import pytest
from annotate_runs import labels
from llm_server import LLMServer, Messages
from scripted import BEES, POOL, Scripted, replayed, replies, run

from uar.acquisition import AcquisitionContext, ListedAcquisition
from uar.annotation.annotate_run import annotate
from uar.annotation.annotators import Annotator, Cascade, Ensemble, Judgement, Likelihood, Pointwise, RelSel, UtilSel
from uar.annotation.annotators.cascade import one_minus_margin
from uar.annotation.outputs import write_doubtful
from uar.collections import open_collection
from uar.errors import UserError
from uar.launch.entry import composed
from uar.llm.costs.ledger import Prices
from uar.llm.costs.spending import Spending
from uar.llm.pooled import question_of
from uar.llm.record import Choose, Reply, Request

GRADE, UMBRELA = Pointwise(template="pointwise"), Pointwise(template="umbrela", scale="trec")
SURE = {"d1": 0.99, "d2": 0.6, "d3": 0.02, "d4": 0.45}  # probability of grade 3, the rest of grade 0


def grader(chances: dict[str, float]) -> Scripted:
    def answer(request: Request) -> Reply:
        chance = next(chances[d] for d, text in POOL.items() if text in str(request))
        return Reply.of_choices({"0": math.log(1 - chance), "1": -99.0, "2": -99.0, "3": math.log(chance)}, tokens_in=10)

    return Scripted(answer)


def shown(engine: Scripted) -> set[str]:
    return {d for r in engine.asked for d, text in POOL.items() if text in str(r)}


def test_the_second_model_is_asked_about_doubtful_passages_alone(tmp_path: Path) -> None:
    first, second = grader(SURE), grader({"d2": 0.1, "d4": 0.9})
    judged, chains = run(tmp_path, Cascade(GRADE, GRADE), [first, second])
    assert (len(first.asked), shown(second)) == (4, {"d2", "d4"})  # of entropies 0.08, 0.97, 0.14, 0.99
    assert [(j.doc_id, j.label, round(j.score, 2), j.grade, j.rank) for j in judged["q1"]] == [
        ("d1", 1, 0.99, 3, 1), ("d4", 1, 0.9, 3, 2), ("d2", 0, 0.1, 0, 3), ("d3", 0, 0.02, 0, 4),
    ]  # fmt: skip
    assert {name: stage.asked for name, stage in chains.progress.stages.items()} == {"pointwise": 4, "then_pointwise": 2}
    again = [grader(SURE), grader(SURE)]
    assert run(tmp_path, Cascade(GRADE, GRADE), again)[0] == judged and again[0].asked == again[1].asked == []
    run(tmp_path, Cascade(GRADE, GRADE, above=0.98), again)  # d4 alone, which the store has
    assert again[1].asked == []
    run(tmp_path, Cascade(GRADE, GRADE, above=0.1), again)
    assert shown(again[1]) == {"d3"} and again[0].asked == []


def test_doubt_by_the_margin_of_the_likeliest_grades() -> None:
    assert one_minus_margin([math.log(p) for p in (0.1, 0.2, 0.3, 0.4)]) == pytest.approx(0.9)
    assert one_minus_margin([-2.0, -math.inf]) == 0 and one_minus_margin([-1.0, -1.0]) == 1
    assert one_minus_margin([-math.inf, -math.inf]) == 1
    cascade = Cascade(GRADE, UMBRELA, above=0.15, doubt="margin", models=1)
    judged = GRADE.judge({"a": tuple(map(math.log, (0.05, 0.05, 0.05, 0.85))), "b": (-0.01, -9, -9, -9)}, 1.0)
    assert cascade._doubtful(judged) == {"a"}  # 1 - 0.8 and nearly 0


def test_a_list_wise_second_sees_the_pools_of_doubtful_questions_whole(tmp_path: Path) -> None:
    chances = {d: 0.5 for d in POOL}
    second = Scripted(replies(relsel="My selection:[[1],[4]]", pseudo_answer="Honey.", utilsel="My selection:[[2]]"))
    cascade = Cascade(GRADE, UtilSel(template="utilsel"))
    judged, chains = run(tmp_path / "a", cascade, [grader(chances), second])
    assert second.stages == ["relsel", "pseudo_answer", "utilsel"] and "then_utilsel" in chains.progress.stages
    assert [(j.doc_id, j.label, j.grade) for j in judged["q1"]] == [("d4", 1, 1), ("d1", 0, 0), ("d2", 0, 0), ("d3", 0, 0)]
    sure = {"d1": 0.99, "d2": 0.01, "d3": 0.01, "d4": 0.6}  # one of four is doubtful, not the question
    judged, _ = run(tmp_path / "b", cascade, [grader(sure), second])
    assert len(second.asked) == 3 and [(j.doc_id, j.label, j.grade, j.score) for j in judged["q1"]][:2] == [
        ("d1", 1, 1, None), ("d4", 1, 1, None),
    ]  # fmt: skip


def test_votes_of_an_ensemble_are_doubt_and_a_failed_second_call_is_no_label(tmp_path: Path) -> None:
    votes = Ensemble(RelSel(template="relsel"), samples=3)
    first = Scripted(lambda r: ["My selection:[[1],[2]]", "My selection:[[1]]", "My selection:[[1],[3]]"][r.sample])

    def answer(request: Request) -> Reply | str:
        return Reply.of_choices({"0": -0.1, "3": -3.0, "1": -9.0, "2": -9.0}) if POOL["d2"] in str(request) else "{}"

    judged, chains = run(tmp_path, Cascade(votes, GRADE), [first, Scripted(answer)], max_failure_rate=1)
    assert [(j.doc_id, j.label) for j in judged["q1"]] == [("d1", 1), ("d2", 0), ("d4", 0)]  # d3 failed
    assert len(chains.progress.failures) == 1 and all(j.votes == () for j in judged["q1"])


def test_training_reads_what_a_cascade_concluded(tmp_path: Path, folder: Path) -> None:
    collection, pool = open_collection(f"local:{folder}:train"), ["d1", "d2", "d3"]
    questions = [question_of(collection, q, pool) for q in collection.queries]
    cheap = Scripted(lambda r: Reply.of_choices({"0": -0.7, "1": -9.0, "2": -9.0, "3": -0.7 if "honey" in str(r) else -7.0}))
    dear = Scripted(lambda r: Reply.of_choices({"0": -5.0, "1": -9.0, "2": -0.1, "3": -5.0}))
    cascade, store = Cascade(GRADE, GRADE), tmp_path / "store"
    judged, _ = run(store, cascade, [cheap, dear], questions, collection=collection.slug)
    assert 0 < len(dear.asked) < len(cheap.asked) and sum(j.label for js in judged.values() for j in js) == len(dear.asked)
    models = ["scripted@1", "scripted@2"]
    assert replayed(store, cascade, models, collection, pool) == {q: judged[q] for q in collection.queries}


@pytest.mark.parametrize(
    ("first", "then", "options", "said"),
    [
        (RelSel(template="relsel"), GRADE, {}, "annotator.first: RelSel does not say how sure it is"),
        (Likelihood(template="likelihood_question"), GRADE, {}, "annotator.first: Likelihood does not say"),
        (GRADE, GRADE, {"models": 1}, "would ask one model the same"),
        (GRADE, GRADE, {"models": 3}, "3 model.s. are given, and a cascade asks 1 first and then 1"),
        (GRADE, GRADE, {"above": 1}, "annotator.above=1: a doubt from 0"),
        (GRADE, GRADE, {"doubt": "fsd"}, "annotator.doubt='fsd'"),
        (Cascade(GRADE, GRADE), GRADE, {}, "annotator.first: Cascade cannot be a part"),
    ],
)
def test_an_impossible_cascade_is_one_line(first: Annotator, then: Annotator, options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Cascade(first, then, **options)
    assert "\n" not in str(error.value)


def test_a_killed_run_goes_on_and_asks_neither_model_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: LLMServer
) -> None:
    monkeypatch.chdir(tmp_path)

    def choose(messages: Messages) -> dict[str, float]:
        doubtful = sum(map(ord, messages[-1]["content"])) % 3 == 0
        return {"3": -0.7, "0": -0.7, "1": -9.0, "2": -9.0} if doubtful else {"0": -0.001, "3": -7.0, "1": -9.0, "2": -9.0}

    server.choose = choose
    models = ["llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=cheap", "llm.backoff=0.01"]
    models += ["+llm@llms.dear=openai", f"llms.dear.base_urls=[{server.url}]", "llms.dear.model=dear"]
    given = [*models, "annotator=cascade", "limit=6", "logger=none"]
    server.fault = lambda number, body: "500" if number > 30 else None
    with pytest.raises(UserError):
        annotate(composed("annotate", *given, "max_failure_rate=0.01", "llm.retries=0", "llms.dear.retries=0"), Path("killed"))
    server.fault = lambda number, body: None
    kept = len(server.seen[:31])
    server.seen.clear()
    spent = annotate(composed("annotate", *given), Path("run"))
    asked = [(body["model"], json.dumps(body["messages"])) for *_, body in server.seen]
    assert len(set(asked)) == len(asked) == spent["calls"] and kept <= 31
    doubted = {text for model, text in asked if model == "dear"}
    stages = spent["stages"]
    every = stages["pointwise"]["calls"] + stages["pointwise"]["calls_answered_by_store"]
    second = stages["then_pointwise"]["calls"] + stages["then_pointwise"]["calls_answered_by_store"]
    assert every == 48 and 0 < second < 30 and all(choose(json.loads(text))["3"] == -0.7 for text in doubted)
    assert len(labels(Path("run"))) == 48
    prices = ["price.input=1000000", "price.models={dear: {input: 3000000, output: 1000000}}"]  # of a token: 1, 3 and 1
    again = annotate(composed("annotate", *given, *prices, "doubtful=0.5"), Path("again"))
    assert again["per_1000_queries"]["cost"] == pytest.approx((7 * every + (7 * 3 + 3) * second) / 6 * 1000)
    plan = annotate(composed("annotate", *given, *prices, "dry_run=true"), Path("dry"))
    assert plan["cost"] > plan["tokens_in"] and (plan["sampled_calls"], plan["sampled_calls_kept"]) == (
        2 * every,
        every + second,
    )
    with pytest.raises(UserError, match="price.models names other; allowed: dear"):
        annotate(composed("annotate", *given, "price.models={other: {input: 1}}"), Path("other"))
    assert len(Path("again/doubtful.jsonl").read_text().splitlines()) == 3
    assert again["calls"] == 0 and len(server.seen) == spent["calls"] and BEES.id == "q1"


def test_a_limit_counts_the_prices_of_each_model() -> None:
    prices = Prices(input=1.0, limit=1.0, models={"dear": {"input": 3.0}}).for_models(["dear"])
    spending, request = Spending(prices), Choose((("user", "?"),), ("0", "1"))
    assert spending.at_most(request, 1) == pytest.approx(3 * spending.at_most(request))
    spending.sent(request, 1)
    spending.came(request, Reply("", tokens_in=100), 1)
    assert spending.spent == pytest.approx(300 / 1e6)
    with pytest.raises(UserError, match="price.models.dear=.*prices from 0 up of input, cached, output"):
        Prices(models={"dear": {"hour": 1.0}})


def test_questions_of_most_doubt_are_listed_for_people(tmp_path: Path) -> None:
    def judged(*doubts: float) -> list[Judgement]:
        return [Judgement(f"d{n}", 0, 0, None, n, doubt) for n, doubt in enumerate(doubts, start=1)]

    every = {"a": judged(0.1, 0.3), "b": judged(1.0, 0.8), "c": judged(0.5, 0.5), "d": judged(0.0, 1.0)}
    corpus = open_collection("mini:dev").corpus  # which has none of these passages
    assert write_doubtful(tmp_path, every, 0.7, corpus) == 3
    assert ListedAcquisition(str(tmp_path / "doubtful.jsonl")).order(AcquisitionContext(list(every), 0)) == [
        "b",
        "c",
        "d",
        "a",
    ]
    with pytest.raises(UserError, match="no scores"):
        write_doubtful(tmp_path, {"a": [Judgement("d1", 0, 0, None, 1)]}, 0.5, corpus)
