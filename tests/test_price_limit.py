"""A run ends before it costs more than it may, and goes on when it is given again."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from llm_server import LLMServer
from scripted import Scripted, many

from uar.annotation.annotate_run import annotate
from uar.annotation.annotators import RelSel
from uar.errors import UserError
from uar.launch.entry import composed
from uar.llm.chains import Chains
from uar.llm.costs import ledger
from uar.llm.costs.discount import discounted
from uar.llm.costs.ledger import Prices
from uar.llm.costs.spending import LimitReached, Spending
from uar.llm.models import LLM
from uar.llm.record import Choose, Generate, Outcome, Reply, Score
from uar.llm.store.store import Store

PRICES = {"input": 100.0, "output": 1000.0}  # so that a call of the tests costs cents


def run(folder: Path, engine: Scripted, limit: float, questions: int = 12) -> tuple[dict, Chains, Spending]:
    spending, store = Spending(Prices(**PRICES, limit=limit)), Store(folder)
    chains = Chains(RelSel(template="relsel"), store, "toy", [LLM("scripted@1", engine)], spending=spending)
    done = {}
    try:
        for query_id, judged in chains.run(many(questions)):
            done[query_id] = judged
    except LimitReached:
        pass
    finally:
        store.close()
    return done, chains, spending


def told(tokens_in: int, tokens_out: int) -> Scripted:
    return Scripted(lambda request: Reply("My selection:[[1]]", tokens_in=tokens_in, tokens_out=tokens_out), window=8)


def test_no_call_is_sent_that_might_pass_the_limit_and_the_store_is_not_asked_twice(tmp_path: Path) -> None:
    engine = told(300, 10)  # 0.04 a call; at most some 0.25
    done, _, spending = run(tmp_path, engine, 0.5)
    assert 0 < len(done) < 12 and len(engine.asked) == len(done)  # what was sent came in and was read
    assert spending.spent == pytest.approx(0.04 * len(done)) and spending.spent <= 0.5
    assert spending.spent + spending.at_most(engine.asked[0]) > 0.5  # one more might have passed it
    assert 1 < engine.most < 8  # far from the limit calls go side by side
    rest = told(300, 10)
    more, _, again = run(tmp_path, rest, 0.5)
    assert set(more) > set(done) and again.spent == pytest.approx(0.04 * len(rest.asked))
    run(tmp_path, rest, 0.5)
    everything, *_ = run(tmp_path, told(300, 10), 0.5)
    assert len(everything) == 12


@pytest.mark.parametrize("limit", [0.3, 0.7, 2.0])
def test_the_limit_holds_also_where_replies_are_as_long_as_they_may_be(tmp_path: Path, limit: float) -> None:
    engine = Scripted(lambda request: Reply("My selection:[[1]]", tokens_in=1, tokens_out=request.limit), window=8)
    _, _, spending = run(tmp_path, engine, limit)
    assert spending.spent <= limit


def test_what_a_call_may_cost() -> None:
    spending = Spending(Prices(**PRICES, limit=1))
    chat = (("user", "día"),)  # four bytes, 16 around the message and 16 at the end
    assert spending.at_most(Generate(chat, 5, reasoning_tokens=2)) == pytest.approx((36 * 100 + 7 * 1000) / 1e6)
    assert spending.at_most(Choose(chat, ("0", "1"))) == pytest.approx((36 * 100 + 1000) / 1e6)
    assert spending.at_most(Score("ab", "c")) == pytest.approx((51 * 100 + 1000) / 1e6)
    spending.sent(request := Generate(chat, 5))
    spending.came(request, Reply("yes"))  # which says nothing of its tokens
    assert spending.spent == pytest.approx(spending.at_most(request))
    spending.sent(request)
    spending.came(request, Reply("", Outcome.ERROR))
    assert spending.spent == pytest.approx(spending.at_most(request))


def test_hours_count_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("uar.llm.costs.spending.time.perf_counter", lambda: now[0])
    spending = Spending(Prices(gpu_hour=3600, gpus=1, limit=10))  # 1 a second
    request = Choose((("user", "?"),), ("0", "1"))
    for _ in range(3):
        assert spending.fits(request)
        spending.sent(request)
        now[0] += 3
        spending.came(request, Reply("0", tokens_in=1))
    assert spending.spent == 9 and not spending.fits(request)  # one call took 3


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({"limit": 0}, "price.limit=0: more than 0 is needed"),
        ({"limit": 1}, "price.limit=1: nothing has a price; give price.input"),
        ({"limit": 1, "gpu_hour": 2.0}, "nothing has a price"),
    ],
)
def test_a_limit_that_cannot_be_watched_is_refused(prices: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Spending(Prices(**prices))


def test_an_annotation_ends_says_what_it_spent_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: LLMServer
) -> None:
    monkeypatch.chdir(tmp_path)
    server.answer = lambda body: "My selection:[[1],[2]]"
    given = ["annotator=relsel", "llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=m", "limit=10", "logger=none"]
    prices = ["price.output=1000000", "price.limit=32", "annotator.selection_tokens=20"]  # a reply has 3 tokens, at most 20
    options = composed("annotate", *given, *prices)
    with pytest.raises(UserError, match=r"price.limit=32 USD: 15 are spent, and the next call may cost 20. 5 of 10 questions"):
        annotate(options, Path("first"))
    spent = json.loads(Path("first/ledger.json").read_text())
    assert spent["queries"] == spent["calls"] == len(server.seen) == 5 and spent["cost"] == 15
    assert Path("first/labels.parquet").is_file()
    options.price.limit = 100
    assert annotate(options, Path("second"))["queries"] == 10 and len(server.seen) == 10
    options.engine = composed("annotate", "engine=ray").engine
    with pytest.raises(UserError, match="price.limit cannot hold; use engine=local"):
        annotate(options, Path("third"))


def test_that_a_server_does_not_say_what_it_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: LLMServer, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = '200 {"choices": [{"message": {"content": "My selection:[[1]]"}, "finish_reason": "stop"}]}'
    server.fault = lambda number, body: answer if number < 3 else None
    given = ["annotator=relsel", "llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=m", "limit=4", "logger=none"]
    spent = annotate(composed("annotate", *given, "price.output=1000000"), Path("run"))
    assert spent["cost"] == 3 and spent["stages"]["relsel"]["replies_without_tokens"] == 3
    assert "relsel: 3 of 4 replies do not say how many tokens they took" in caplog.text


def test_each_model_is_counted_at_its_own_factor() -> None:
    batched, plain = (
        {"_target_": "uar.llm.models.openai_batch.OpenAIBatch", "price_factor": 0.5},
        {"_target_": "uar.llm.models.openai.OpenAI"},
    )
    prices = Prices(input=2.0, output=4.0, models={"dear": {"input": 10.0}}).for_models(["dear", "same"])
    found = discounted(prices, [plain, batched, batched])
    assert (found.input, found.output) == (2.0, 4.0)
    assert [(found.of(n).input, found.of(n).output) for n in (1, 2)] == [(5.0, 2.0), (1.0, 2.0)]
    found = discounted(prices, [batched, plain, batched])
    assert (found.input, found.output) == (1.0, 2.0)
    assert [(found.of(n).input, found.of(n).output) for n in (1, 2)] == [(10.0, 4.0), (1.0, 2.0)]


def test_rates_that_are_kept_at_once_are_both_kept(tmp_path: Path, both: Callable) -> None:
    spent = {"calls": 20, "computed_tokens_per_second": 5.0}
    both(ledger, *(partial(ledger.keep_rate, tmp_path, model, spent) for model in ("a", "b")))
    assert ledger.read_rates(tmp_path) == {"a": 5.0, "b": 5.0}
