"""Set-wise and sliding rankings against an oracle, and any annotator as a re-ranker."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest
from hydra.errors import InstantiationException
from llm_server import LLMServer
from scripted import Scripted, run, shown_passages

from uar.annotation.annotators import Setwise, Sliding
from uar.annotation.annotators.setwise import most_calls
from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluate import evaluate
from uar.launch.entry import composed
from uar.llm.call import Question
from uar.llm.record import Choose, Outcome, Reply, Request
from uar.reranking import ByAnnotator, Reranked, reranked
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.storage.runs import read_run

WORTH: dict[str, float] = {}  # of texts, for the oracle of this process
BROKEN: set[str] = set()  # questions that it does not answer


def lettered(request: Request) -> dict[str, str]:
    lines = [line for _, text in request.messages for line in text.splitlines()]
    return {m[1]: m[2] for m in (re.match(r"\[([A-Z])\] (.*)", line) for line in lines) if m}


def oracle(request: Request) -> Reply | str:
    """Knows what each text is worth, and says so in the form that it is asked for."""
    text = "\n".join(text for _, text in request.messages)
    if any(question in text for question in BROKEN):
        return Reply("the server is down", Outcome.ERROR)
    if isinstance(request, Choose):
        worth = {letter: WORTH[shown] for letter, shown in lettered(request).items()}
        if not worth:  # of one passage, grades
            grade = next(value for shown, value in WORTH.items() if shown in text)
            worth = {choice: -abs(grade - int(choice)) for choice in request.choices}
        total = math.log(sum(math.exp(value) for value in worth.values()))
        return Reply.of_choices({choice: worth[choice] - total for choice in request.choices})
    shown_by = shown_passages(request.messages)
    return " > ".join(f"[{n}]" for n in sorted(shown_by, key=lambda n: -WORTH[shown_by[n]]))


class Grader(Scripted):
    """Writes the grade of the one passage that it is shown."""

    def __init__(self, model: str) -> None:
        super().__init__(
            lambda request: str(next(int(grade) for text, grade in WORTH.items() if text in request.messages[-1][1]))
        )


class Oracle(Scripted):
    """As a config names it."""

    opened = 0

    def __init__(self, model: str) -> None:
        super().__init__(oracle)
        Oracle.opened += 1


@pytest.fixture(autouse=True)
def worth() -> Iterator[None]:
    yield
    WORTH.clear()
    BROKEN.clear()
    Oracle.opened = 0


def pool(number: int) -> Question:
    """Passages whose worth falls in an order that the pool does not show."""
    texts = {f"d{n:03}": f"text {n}" for n in range(number)}
    WORTH.update({text: 9 * math.sin(n * n) for n, text in enumerate(texts.values())})
    return Question("q1", "which", texts)


def by_worth(question: Question) -> list[str]:
    return sorted(question.passages, key=lambda d: -WORTH[question.passages[d]])


TOURNAMENTS = [  # passages, window, k, calls; None: fewer than at most, since windows run out of passages
    (1, 20, 10, 0), (2, 20, 1, 1), (7, 20, 3, 3), (20, 20, 1, 1), (21, 20, 1, 2), (100, 20, 10, 24),
    (45, 4, 10, 42), (9, 3, 9, None),
]  # fmt: skip


@pytest.mark.parametrize(("number", "window", "k", "calls"), TOURNAMENTS)
def test_the_best_k_are_exact_in_the_stated_number_of_calls(
    tmp_path: Path, number: int, window: int, k: int, calls: int | None
):
    question, model = pool(number), Scripted(oracle)
    judged, _ = run(tmp_path, Setwise(template="setwise", k=k, window=window), model, [question])
    order = [j.doc_id for j in judged["q1"]]
    assert order[:k] == by_worth(question)[:k] and sorted(order) == sorted(question.passages)
    assert [j.rank for j in judged["q1"]] == list(range(1, number + 1))
    assert len(model.asked) <= most_calls(number, window, k)
    assert calls is None or len(model.asked) == calls == most_calls(number, window, k)
    if number <= window and number > 1:
        assert order == by_worth(question)  # the others by their probability
    elif k < number:
        rest = [d for d in question.passages if d not in order[:k]]
        assert order[k:] == rest


def test_a_letter_in_a_text_is_no_identifier_and_dry_runs_have_replies(tmp_path: Path):
    question = Question("q1", "which [A] is it", {"d0": "as [B] says", "d1": "and [ C ]", "d2": "no"})
    WORTH.update({"as (B) says": 1.0, "and (C)": 3.0, "no": 2.0})
    asker = Setwise(template="setwise", k=2)
    judged, _ = run(tmp_path, asker, Scripted(oracle), [question])
    assert [j.doc_id for j in judged["q1"]] == ["d1", "d2", "d0"]
    chain = asker.chain(question)
    (call,) = next(chain)
    assert "which (A) is it" in call.request.messages[-1][1]
    assert call.check(Reply(call.example)) == Outcome.OK
    assert Setwise(template="setwise", reasoning=True).pick(question, ["d0", "d1"]).check(Reply("B")) == Outcome.OK


def test_setwise_positives_are_the_best_of_the_picks(tmp_path: Path):
    question = pool(20)
    for threshold, positive in ((10.0, 2), (1.0, 1), (50.0, 3)):
        judged, _ = run(tmp_path, Setwise(template="setwise", k=3, threshold=threshold), Scripted(oracle), [question])
        assert [j.label for j in judged["q1"]] == [1] * positive + [0] * (20 - positive)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [("<think>B or A?</think>[B]", "ok"), ("B", "ok"), ("**B**.", "ok"), ("A passage is [B].", "ok"),
     ("[A] or [B]", "unparsable"), ("A is better than [B]", "unparsable"), ("Not [B]", "unparsable"),
     ("[B] is the least useful.", "unparsable"),
     ("[T]", "out_of_range"), ("the second", "unparsable"), ("", "empty")],
)  # fmt: skip
def test_the_letter_is_read_from_the_text_of_a_model_that_reasons(tmp_path: Path, text: str, outcome: str):
    judged, chains = run(tmp_path, Setwise(template="setwise", k=1, reasoning=True), Scripted(lambda _: text), [pool(3)], 1.0)
    assert [j.doc_id for j in judged.get("q1", ())] == (["d001", "d000", "d002"] if outcome == "ok" else [])
    assert [failure.outcome for failure in chains.progress.failures] == ([] if outcome == "ok" else [outcome])


@pytest.mark.parametrize("layout", ["paper", "shared_prefix"])
@pytest.mark.parametrize(("number", "calls"), [(1, 0), (2, 1), (20, 1), (25, 2), (100, 9)])
def test_a_sliding_window_brings_the_best_to_the_top(tmp_path: Path, number: int, calls: int, layout: str):
    question, model = pool(number), Scripted(considered if layout == "shared_prefix" else oracle)
    judged, _ = run(tmp_path, Sliding(template="listwise", layout=layout), model, [question])
    order = [j.doc_id for j in judged["q1"]]
    assert order[:10] == by_worth(question)[:10] and sorted(order) == sorted(question.passages)
    assert len(model.asked) == calls
    assert sum(j.label for j in judged["q1"]) == max(1, number // 10)


def considered(request: Request) -> str:
    """As the oracle, of the passages that the task names."""
    shown_by = shown_passages(request.messages)
    named = [int(n) for n in re.findall(r"\[(\d+)\]", request.messages[-1][1].partition("Consider only")[2])]
    return " > ".join(f"[{n}]" for n in sorted(named, key=lambda n: -WORTH[shown_by[n]]))


def test_options_that_cannot_be_are_refused():
    for make, message in (
        (lambda: Setwise(template="setwise", k=0), "annotator.k=0: at least 1"),
        (lambda: Setwise(template="setwise", window=1), "annotator.window=1: 2 to 20"),
        (lambda: Setwise(template="setwise", window=21), "annotator.window=21: 2 to 20"),
        (lambda: Setwise(template="setwise", threshold=101), "annotator.threshold=101"),
        (lambda: Sliding(template="listwise", step=20), "annotator.step=20: 1 or more, and less than annotator.window=20"),
    ):
        with pytest.raises(UserError, match=message):
            make()


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def by_annotator(store: Path, name: str, *options: str, llm: str = "Oracle") -> ByAnnotator:
    cfg = composed("evaluate", f"rerank={name}", f"store={store}", "rerank.depth=6", *options)
    cfg.rerank.llm = {"_target_": f"{__name__}.{llm}", "model": "oracle"}
    try:
        both = reranked(BM25Ranker(), cfg.rerank, 1000)
    except InstantiationException as error:  # which commands tell as what is behind it
        raise error.__cause__ or error from error
    assert isinstance(both, Reranked) and isinstance(both._reranker, ByAnnotator)
    return both._reranker


RUN = {q: [(f"d{n}", 10.0 - n) for n in range(1, 7)] for q in ("q1", "q2", "q3")}


@pytest.mark.parametrize("name", ["setwise", "listwise", "pointwise"])
def test_an_llm_re_ranks_through_the_store(toy: Collection, tmp_path: Path, name: str):
    texts = dict(zip(toy.corpus.ids(), toy.corpus.texts(), strict=True))
    WORTH.update({text: float(grade) for text, grade in zip(texts.values(), (1, 0, 3, 1, 2, 0), strict=True)})
    (tmp_path / "run").mkdir()
    model = by_annotator(tmp_path / "store", name)
    with Session(ExactSearch, folder=tmp_path / "run") as session:
        found = model.opened(session).rerank(toy, RUN, 6)
        below = model.rerank(toy, RUN, 3)
    assert Oracle.opened == 1 and model.key(toy) is None
    for hits in found.values():
        assert [d for d, _ in hits[:2]] == ["d3", "d5"]
        assert [s for _, s in hits] == sorted((s for _, s in hits), reverse=True)
    assert [d for d, _ in below["q1"]][0] == "d3" and [d for d, _ in below["q1"]][3:] == ["d4", "d5", "d6"]
    first = json.loads((tmp_path / "run" / "rerank_ledger.json").read_text())
    assert first["calls"] > 0 and first["queries"] == 6 and first["model"] == "oracle@main"
    again = by_annotator(tmp_path / "store", name)
    with Session(ExactSearch, folder=tmp_path / "run") as session:
        assert again.opened(session).rerank(toy, RUN, 6) == found
    second = json.loads((tmp_path / "run" / "rerank_ledger.json").read_text())
    assert second["calls"] == 0 and second["calls_answered_by_store"] > 0


def test_passages_of_one_grade_keep_the_order_of_the_run(toy: Collection, tmp_path: Path):
    WORTH.update(zip(toy.corpus.texts(), (1, 3, 1, 3, 0, 1), strict=True))
    backwards = {q: [(d, score) for (d, _), (_, score) in zip(hits[::-1], hits, strict=True)] for q, hits in RUN.items()}
    model = by_annotator(tmp_path / "store", "pointwise", "rerank.annotator.reasoning=true", llm="Grader")
    for run_, order in ((RUN, "d2 d4 d1 d3 d6 d5"), (backwards, "d4 d2 d6 d3 d1 d5")):
        assert [d for d, _ in model.rerank(toy, run_, 6)["q1"]] == order.split()
    scored = by_annotator(tmp_path / "store", "pointwise")  # equal probabilities are ties too
    assert [d for d, _ in scored.rerank(toy, backwards, 6)["q1"]] == ["d4", "d2", "d6", "d3", "d1", "d5"]


def test_questions_whose_calls_fail_keep_their_order_and_are_counted(
    toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    WORTH.update({text: float(n) for n, text in enumerate(toy.corpus.texts())})
    BROKEN.add(toy.queries["q2"].text)
    model = by_annotator(tmp_path / "store", "setwise")
    (tmp_path / "run").mkdir()
    with Session(ExactSearch, folder=tmp_path / "run") as session:
        found = model.opened(session).rerank(toy, RUN, 6)
    assert [d for d, _ in found["q2"]] == [d for d, _ in RUN["q2"]]
    assert [d for d, _ in found["q1"]] == [d for d, _ in reversed(RUN["q1"])]
    assert "calls failed: 1 of 3 questions keep the order of the run" in caplog.text
    (failure,) = [json.loads(line) for line in (tmp_path / "run" / "rerank_failures.jsonl").read_text().splitlines()]
    assert (failure["query_id"], failure["outcome"]) == ("q2", "error")
    BROKEN.clear()  # and an error is asked again
    mended = by_annotator(tmp_path / "store", "setwise")
    assert [d for d, _ in mended.rerank(toy, RUN, 6)["q2"]] == [d for d, _ in reversed(RUN["q2"])]


def test_past_the_rate_of_failures_the_run_stops(toy: Collection, tmp_path: Path):
    many = open_collection("mini:train")
    WORTH.update(dict.fromkeys(many.corpus.texts(), 1.0))
    BROKEN.add("Reply with its letter only")
    model = by_annotator(tmp_path / "store", "setwise")
    pools = {q: [(d, 0.0) for d in list(many.corpus.ids())[:3]] for q in list(many.queries)[:80]}
    with pytest.raises(UserError, match=r"calls failed .* more than max_failure_rate=0.05.*What was answered is kept"):
        model.rerank(many, pools, 3)


def test_annotators_that_cannot_rank_are_refused(tmp_path: Path):
    for name in ("answer_likelihood", "joint_likelihood"):
        with pytest.raises(UserError, match="asks no model, asks several, or compares with gold answers"):
            by_annotator(tmp_path, "setwise", f"annotator@rerank.annotator={name}")
    with pytest.raises(UserError, match="rerank.depth=0: at least 1"):
        by_annotator(tmp_path, "setwise", "rerank.depth=0")
    with pytest.raises(UserError, match=r"rerank.depth=1001: .* gives at most 1000 passages a query"):
        by_annotator(tmp_path, "setwise", "rerank.depth=1001")


def test_a_served_model_re_ranks_bm25_in_an_evaluation(folder: Path, tmp_path: Path, server: LLMServer):
    def choose(messages: Any) -> dict[str, float]:
        letters = re.findall(r"^\[([A-Z])\] (.*)", messages[-1]["content"], re.MULTILINE)
        worst_first = {letter: -1.0 - len(text) / 100 for letter, text in letters}
        return {**dict.fromkeys(ascii_uppercase, -30.0), **worst_first}

    server.choose = choose
    given = [
        "retriever=bm25",
        f"collections=[local:{folder}:test]",
        "logger=none",
        f"store={tmp_path / 'store'}",
        "rerank=setwise",
    ]
    served = ["llm@rerank.llm=openai", f"rerank.llm.base_urls=[{server.url}]", "rerank.llm.model=x", "measures=[RR@10]"]
    evaluate(composed("evaluate", *given, *served, "rerank.depth=6", "retrieval_depth=6"), tmp_path / "run")
    before = BM25Ranker().rank(open_collection(f"local:{folder}:test"), ["q1", "q2", "q3"], 6)
    collection = open_collection(f"local:{folder}:test")
    for query_id, hits in read_run(tmp_path / "run" / "runs" / "toy.test.trec").items():
        pool = [d for d, _ in before[query_id]]
        length = {d: len(collection.corpus.text(row)) for d, row in zip(pool, collection.corpus.rows(pool), strict=True)}
        assert [length[d] for d, _ in hits] == sorted(length.values())
    assert (tmp_path / "run" / "rerank_ledger.json").is_file()
    facts = json.loads((tmp_path / "run" / "manifest.json").read_text()).get("search", {}).get("toy.test", {})
    assert "questions_per_second" not in facts  # loading the model, and replies of the store, are no speed of it
