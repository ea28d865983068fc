"""Batches of calls at a server that is slow, partial, and lets them expire."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from annotate_runs import KEY, QUIET, labels, lines
from asking import ask
from batch_api import BatchAPI, serve_batches
from commands import start_command
from llm_server import gold_answers
from openai_clients import BEES, chats, nobody

from uar.annotation.annotate_run import annotate
from uar.collections import open_collection
from uar.collections.images import Image
from uar.errors import DataError, EngineError
from uar.launch.entry import composed
from uar.llm.models.batch_lines import reply_of
from uar.llm.models.openai_batch import OpenAIBatch
from uar.llm.pictured import Pictured
from uar.llm.record import Choose, Generate, Outcome

Connect = Callable[..., OpenAIBatch]


@pytest.fixture
def api() -> Iterator[BatchAPI]:
    with serve_batches() as running:
        running.answer = lambda messages: messages[-1]["content"].upper()
        yield running


@pytest.fixture
def connect(api: BatchAPI, tmp_path: Path) -> Iterator[Connect]:
    with ExitStack() as opened:

        def open_one(**options: object) -> OpenAIBatch:
            usual = {"model": "m", "base_url": api.url, "folder": str(tmp_path / "batches"), "poll": 0.01, "backoff": 0.001}
            engine = OpenAIBatch(**(usual | options))
            opened.callback(engine.close)
            return engine

        yield open_one


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "batches").glob("*.json"))


def test_calls_go_in_files_and_replies_come_to_who_asked(api: BatchAPI, connect: Connect, tmp_path: Path) -> None:
    api.looks = 2
    calls = [*chats(5), *chats(1)]
    replies = ask(connect(max_requests=2), calls)
    assert [r.output for r in replies] == [f"NUMBER {n}" for n in (0, 1, 2, 3, 4, 0)]
    assert {r.outcome for r in replies} == {Outcome.OK} and len(api.asked) == 5 and len(api.batches) == 3
    assert [r.tokens_in for r in replies] == [1_000] * 5 + [0]  # one call, two who wait: it is counted once
    body = api.asked[0][1]
    assert body["model"] == "m" and body["messages"] == calls[0].chat() and body["seed"] == 0
    line = json.loads(api.files["file_0"].splitlines()[0])
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    assert not kept(tmp_path)


def test_an_image_goes_in_the_file_and_is_not_remembered(api: BatchAPI, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    content, api.answer = base64.b64encode((tmp_path / "a.png").read_bytes()).decode(), lambda messages: None
    call = Generate((("user", Pictured("Hi.", Image("a.png", tmp_path))),), 5)
    api.looks, engine = 1_000, connect(poll=0.0)
    engine.submit(0, call)
    engine._send()
    ((_, body),) = api.asked
    image, text = body["messages"][0]["content"]
    assert image["image_url"]["url"] == f"data:image/png;base64,{content}" and text == {"type": "text", "text": "Hi."}
    (job,) = kept(tmp_path)
    assert content[:40] not in job.read_text()
    repeats = {"response": {"status_code": 400, "body": {"error": {"code": 400, "message": f"bad {image}"}}}}
    assert reply_of(call, repeats, "completed", False).output.startswith("400 bad {'type': 'image_url'")
    assert content[:40] not in reply_of(call, repeats, "completed", False).output


@pytest.mark.parametrize(("status", "code"), [("expired", "executed in time"), ("cancelled", "executed in time")])
def test_what_a_batch_leaves_out_is_an_error_and_is_asked_anew(
    api: BatchAPI, connect: Connect, tmp_path: Path, status: str, code: str
) -> None:
    api.ends = lambda number: status if number == 0 else "completed"
    first = ask(connect(), chats(3))
    assert [r.outcome for r in first] == [Outcome.OK, Outcome.ERROR, Outcome.ERROR] and code in first[1].output
    assert not kept(tmp_path)
    assert [r.outcome for r in ask(connect(), chats(3)[1:])] == [Outcome.OK] * 2
    assert len(api.asked) == 5


def test_a_call_that_failed_is_an_error_beside_the_others(api: BatchAPI, connect: Connect) -> None:
    api.answer = lambda messages: None if "1" in messages[-1]["content"] else "yes"
    replies = ask(connect(), chats(3))
    assert [r.outcome for r in replies] == [Outcome.OK, Outcome.ERROR, Outcome.OK]
    assert replies[1].output == "400 the prompt is too long"


def test_choices_need_log_likelihoods_and_texts_cannot_be_scored(connect: Connect) -> None:
    (reply,) = ask(connect(), [Choose((("user", "1 or 2?"),), ("1", "2"))])
    assert reply.outcome == Outcome.ERROR and "log-likelihoods" in reply.output
    with pytest.raises(EngineError, match="llm=openai_batch cannot score a text"):
        connect().submit(0, BEES)


@pytest.mark.parametrize("by", ["upload", "refusal"])
def test_a_file_that_is_too_large_is_split(api: BatchAPI, connect: Connect, tmp_path: Path, by: str) -> None:
    if by == "upload":
        api.largest = 700
    else:
        api.refuses = lambda calls: "file_too_large" if calls > 2 else None
    replies = ask(connect(), chats(7))
    assert [r.output for r in replies] == [f"NUMBER {n}" for n in range(7)] and len(api.asked) == 7
    assert not kept(tmp_path)
    if by == "upload":
        (one, two) = ask(connect(), [chats(8)[7], Generate((("user", "long " * 300),), 5)])
        assert (one.outcome, two.outcome) == (Outcome.OK, Outcome.ERROR) and "413" in two.output


def test_own_limits_hold(api: BatchAPI, connect: Connect) -> None:
    most = 0

    def count(method: str, path: str) -> None:
        nonlocal most
        most = max(most, sum(b["status"] == "validating" for b in api.batches.values()))

    api.fault = count
    api.looks = 1
    ask(connect(max_bytes=700, max_batches=1), chats(7))
    assert len(api.batches) > 2 and max(len(f) for n, f in api.files.items() if n.startswith("file")) <= 700 and most == 1


def test_a_batch_that_is_refused_is_one_line(api: BatchAPI, connect: Connect, tmp_path: Path) -> None:
    api.refuses = lambda calls: "model_not_found"
    with pytest.raises(EngineError, match="refused batch batch_0: model_not_found: no; mend it") as error:
        ask(connect(), chats(2))
    assert "\n" not in str(error.value) and not kept(tmp_path)


def test_broken_connections_are_tried_again_and_begin_no_batch_twice(api: BatchAPI, connect: Connect) -> None:
    faults = {("POST", "/v1/files"): [503], ("POST", "/v1/batches"): [503, 504], ("GET", "/v1/batches/batch_0"): [500, 429]}
    api.fault = lambda method, path: next(iter(faults.get((method, path), [])), None) and faults[method, path].pop(0)
    assert len(ask(connect(), chats(3))) == 3
    assert len(api.batches) == 1 and len(api.asked) == 3  # the try that broke off had begun it
    tries = []
    api.fault = lambda method, path: tries.append(path) or 401
    with pytest.raises(EngineError, match="/files answered 401 it broke; batches that were begun go on"):
        ask(connect(), chats(1))
    api.fault = lambda method, path: tries.append(path) or (403 if path == "/v1/batches" else None)
    with pytest.raises(EngineError, match="/batches answered 403"):
        ask(connect(), chats(1))
    assert tries == ["/v1/files", "/v1/files", "/v1/batches"]  # what is final is not tried again
    with nobody() as url, pytest.raises(EngineError, match="does not answer"):
        ask(connect(base_url=url, retries=1), chats(1))


def test_who_goes_on_asks_nothing_twice(api: BatchAPI, connect: Connect, tmp_path: Path) -> None:
    """Killed before the batch was known, while it worked, and when half of its replies were kept."""
    api.looks = 10**6
    engine = connect()
    for ticket, request in enumerate(chats(4)):
        engine.submit(ticket, request)
    engine._send()
    (path,) = kept(tmp_path)
    known = json.loads(path.read_text())
    assert known["batch"] == "batch_0" and len(known["waiting"]) == 4
    path.write_text(json.dumps(known | {"batch": ""}))  # as it stood before the answer came
    api.looks = 0
    second = connect()
    for ticket, request in enumerate(chats(5)):
        second.submit(ticket, request)
    replies = iter(second.step())
    assert next(replies)[1].output == "NUMBER 0"  # the others are not kept yet: the batch is remembered
    assert json.loads(path.read_text())["waiting"] == known["waiting"]
    third = connect()
    assert [r.output for r in ask(third, chats(5))] == [f"NUMBER {n}" for n in range(5)]
    assert len({name for name, _ in api.asked}) == len(api.asked) == 5
    assert len(kept(tmp_path)) <= 1  # that of the fifth call, which nobody took


def test_calls_that_come_later_are_found_in_a_batch_that_goes_on(api: BatchAPI, connect: Connect, tmp_path: Path) -> None:
    api.looks = 10**6
    first = connect()
    for ticket, request in enumerate(chats(6)):
        first.submit(ticket, request)
    first._send()
    second = connect()
    for ticket, request in enumerate(chats(6)):
        second.submit(ticket, request)
        second._go_on_with_kept()
    api.looks = 0
    assert [reply.output for _, reply in second.step()] == [f"NUMBER {n}" for n in range(6)]
    assert len(api.asked) == 6 and len(api.batches) == 1 and not kept(tmp_path)


def test_a_batch_that_the_server_forgot_is_sent_anew(api: BatchAPI, connect: Connect, tmp_path: Path) -> None:
    api.looks = 10**6
    engine = connect()
    engine.submit(0, chats(1)[0])
    engine._send()
    api.batches.clear()
    api.looks = 0
    assert [r.output for r in ask(connect(), chats(1))] == ["NUMBER 0"]
    gone = iter([404])  # the file of its replies
    api.fault = lambda method, path: next(gone, None) if path.endswith("/content") else None
    assert [r.output for r in ask(connect(), chats(1))] == ["NUMBER 0"] and len(api.asked) == 4
    (tmp_path / "batches" / "odd.json").write_text("[]")
    with pytest.raises(DataError, match="odd.json: not a batch"):
        ask(connect(), chats(2))


@pytest.mark.parametrize(
    ("options", "fault"),
    [({"window": 0}, "window is out of range"), ({"max_batches": -1}, "max_batches"), ({"price_factor": 2.0}, "price_factor"),
     ({"constrain": "regex"}, "json_schema"), ({"base_url": "api"}, "is not the URL")],
)  # fmt: skip
def test_odd_options_are_refused(connect: Connect, options: dict[str, object], fault: str) -> None:
    with pytest.raises(EngineError, match=fault):
        connect(**options)


def words(api: BatchAPI) -> list[str]:
    served = ["llm=openai_batch", f"llm.base_url={api.url}", "llm.model=gold", "llm.poll=0.05", "llm.backoff=0.01"]
    return ["annotator=utilsel", "limit=4", *served, "price.input=2000", "price.output=20000", QUIET]


def test_a_run_killed_while_it_waits_goes_on_with_the_same_batch(
    api: BatchAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three stages are three batches; tokens cost half."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    api.answer, api.looks = gold_answers(open_collection("mini:train")), 10**6
    outputs = [tmp_path / "stdout", tmp_path / "stderr"]
    process = start_command("annotate", words(api), tmp_path, outputs)
    until = time.monotonic() + 120
    while not api.batches and time.monotonic() < until:
        time.sleep(0.05)
    while not any(b["looks"] for b in api.batches.values()) and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.join()
    assert len(api.batches) == 1 and len(api.asked) == 4
    api.looks = 1
    spent = annotate(composed("annotate", *words(api)), tmp_path / "run")
    names = [name for name, _ in api.asked]
    assert len(api.batches) == 3 and len(names) == len(set(names)) == spent["calls"] == 12
    assert spent["cost"] == pytest.approx(12 * (1_000 * 2_000 + 5 * 20_000) / 1e6 / 2)
    assert {row["label"] for row in labels(tmp_path / "run")} == {0, 1}
    assert {h.get("authorization") for h in api.headers} == {f"Bearer {KEY}"}
    assert not list((tmp_path / "annotations" / "batches").glob("*.json"))
    again = annotate(composed("annotate", *words(api)), tmp_path / "again")
    assert again["calls"] == 0 and len(api.batches) == 3
    texts = [p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".parquet"]
    assert not any(KEY in text for text in texts)


def test_an_expired_batch_leaves_failures_and_no_labels(
    api: BatchAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    api.answer, api.ends = gold_answers(open_collection("mini:train")), lambda number: "expired" if not number else "completed"
    options = [*words(api), "annotator=relsel", "max_failure_rate=1"]
    spent = annotate(composed("annotate", *options), tmp_path / "run")
    assert (spent["queries"], spent["failed_calls"]) == (1, 3)
    failures = lines(tmp_path / "run" / "failures.jsonl")
    assert {f["outcome"] for f in failures} == {"error"} and {r["query_id"] for r in labels(tmp_path / "run")}.isdisjoint(
        {f["query_id"] for f in failures}
    )
    spent = annotate(composed("annotate", *options), tmp_path / "again")
    assert (spent["queries"], spent["calls"], spent["calls_answered_by_store"]) == (4, 3, 1)
    assert not (tmp_path / "annotations" / "rates.json").exists()  # a day's wait is no speed
