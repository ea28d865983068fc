"""Engines against plain forwards of the model, against each other, and against real HTTP servers."""

import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
from conftest import SMOLLM2
from llm_server import LLMServer, serve, words_with_logprobs
from scipy.stats import spearmanr

from uar.annotation.engines import Engine, identity_of
from uar.annotation.engines import openai as openai_module
from uar.annotation.engines.local import TransformersEngine
from uar.annotation.engines.openai import OpenAIEngine
from uar.annotation.engines.packing import pack
from uar.annotation.prompts import load_text
from uar.annotation.record import Generate, Outcome, Reply, Request, Score
from uar.collections import open_collection
from uar.errors import EngineError
from uar.models import locate

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
HELLO = Generate((("user", "Say hello."),), max_tokens=8)
BEES = Score("Bees make honey.\n\nA question:", " what do bees make")
IN_VLLM = """
import json, sys
from uar.annotation.engines.vllm import VLLMEngine
from uar.annotation.record import Generate, Score

def main(model, dtype, out):
    engine = VLLMEngine(model, dtype=dtype, max_model_len=512, kv_gib=1)
    requests = [Score(*pair) for pair in json.load(sys.stdin)]
    requests += [Generate((("user", "What is the capital of France?"),), 12)]
    requests += [Score("word " * 600, " question"), Generate((("user", "word " * 600),), 12)]
    for ticket, request in enumerate(requests):
        engine.submit(ticket, request)
    replies = {}
    while len(replies) < len(requests):
        replies.update(engine.step())
    engine.close()
    with open(out, "w") as file:
        json.dump([[replies[n].output, replies[n].outcome] for n in range(len(requests))], file)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def ask(engine: Engine, requests: Sequence[Request]) -> list[Reply]:
    """Replies in the order of the requests, all submitted at once."""
    for ticket, request in enumerate(requests):
        engine.submit(ticket, request)
    replies: dict[int, Reply] = {}
    while len(replies) < len(requests):
        replies.update(engine.step())
    return [replies[n] for n in range(len(requests))]


def nats(replies: Sequence[Reply]) -> list[float]:
    assert all(reply.outcome == Outcome.OK for reply in replies), replies
    return [reply.mean_logprob() for reply in replies]


def agree(ours: Sequence[float], theirs: Sequence[float]) -> None:
    """The two are one scale: under 0.05 nat a token apart on average, and in one order."""
    gap = sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
    assert gap < 0.05
    assert spearmanr(ours, theirs).statistic > 0.99
    assert max(ours) - min(ours) > 1


def beginnings(questions: int, words: int) -> list[Score]:
    """Questions of mini, each with the first words of six passages, of its own subject and of others."""
    mini = open_collection("mini:train")
    prompt = load_text("likelihood_question", frozenset({"passage", "query"}))
    chosen = []
    for query_id in list(mini.queries)[: 7 * questions : 7]:
        graded = list(mini.qrels[query_id])[:4]
        others = [d for d in mini.corpus.ids() if d not in mini.qrels[query_id]][:2]
        for row in mini.corpus.rows(graded + others):
            start = " ".join(mini.corpus.text(row).split()[:words])
            chosen.append(Score(*prompt.render(passage=start, query=mini.queries[query_id].text)))
    assert len(set(chosen)) == 6 * questions
    return chosen


@pytest.fixture(scope="module")
def pairs() -> list[Score]:
    return beginnings(questions=2, words=40)


@pytest.fixture(scope="module")
def short_pairs() -> list[Score]:
    """Short, for a bf16 that the processor may have to emulate; many, since near ties change places under rounding."""
    return beginnings(questions=4, words=12)


@pytest.fixture(scope="module")
def local() -> TransformersEngine:
    return TransformersEngine(SMOLLM2, dtype="fp32")


@pytest.fixture(scope="module")
def fp32(local: TransformersEngine, pairs: list[Score]) -> list[float]:
    return nats(ask(local, pairs))


@pytest.fixture(scope="module")
def plain(local: TransformersEngine, pairs: list[Score]) -> list[float]:
    """Mean log-likelihoods of the targets by one plain forward a pair."""
    values = []
    for pair in pairs:
        prefix, target = (local.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (pair.prefix, pair.target))
        assert local.tokenizer(pair.prefix + pair.target, add_special_tokens=False)["input_ids"] == prefix + target
        with torch.inference_mode():
            logits = local.model(torch.tensor([prefix + target], device=local.model.device)).logits[0].float()
        picked = logits[len(prefix) - 1 : -1].log_softmax(-1)[range(len(target)), target]
        values.append(float(picked.mean()))
    return values


def test_packing_lets_a_target_see_its_prefix_and_itself() -> None:
    packed = pack([([5, 6], [[7, 8, 9], [10]]), ([11], [[12, 13]])])
    assert packed.ids.tolist() == [[5, 6, 7, 8, 11, 12]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert packed.wanted.tolist() == [7, 8, 9, 10, 12, 13]
    assert packed.owner.tolist() == [0, 0, 0, 1, 2, 2]
    assert packed.predict[packed.pick].tolist() == [1, 2, 3, 1, 4, 5]
    assert packed.allowed[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


def test_packing_keeps_targets_of_one_prefix_apart() -> None:
    allowed = pack([([1, 2], [[3, 4], [5, 6]])]).allowed[0, 0]
    assert allowed.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_log_likelihoods_equal_a_plain_forward(fp32: list[float], plain: list[float]) -> None:
    assert fp32 == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("max_tokens", [1, 300, 8192])
def test_log_likelihoods_do_not_depend_on_the_packing(
    local: TransformersEngine, pairs: list[Score], plain: list[float], monkeypatch: pytest.MonkeyPatch, max_tokens: int
) -> None:
    monkeypatch.setattr(local, "max_tokens", max_tokens)
    assert nats(ask(local, pairs[::-2])) == pytest.approx(plain[::-2], abs=1e-3)


def test_a_prefix_is_read_once_for_the_targets_that_wait_together(
    local: TransformersEngine, pairs: list[Score], plain: list[float]
) -> None:
    other = Score(pairs[0].prefix, " Who was it, and when?")
    together = ask(local, [pairs[0], other, pairs[1]])
    assert [r.tokens_cached > 0 for r in together] == [False, True, False]
    assert nats([together[0], together[2]]) == pytest.approx(plain[:2], abs=1e-3)
    (alone,) = ask(local, [other])
    assert alone.tokens_cached == 0
    assert together[1].mean_logprob() == pytest.approx(alone.mean_logprob(), abs=1e-3)
    assert json.loads(alone.output)["tokens"] == len(local.tokenizer(other.target)["input_ids"])


def test_transformers_generates_what_greedy_decoding_of_the_model_gives(local: TransformersEngine) -> None:
    requests = [Generate((("user", "What is the capital of France?"),), max_tokens=n) for n in (3, 12)]
    replies = ask(local, requests)
    for request, reply in zip(requests, replies, strict=True):
        ids = torch.tensor([local.chat_ids(request)], device=local.model.device)
        with torch.inference_mode():
            out = local.model.generate(ids, max_new_tokens=request.max_tokens, do_sample=False)[0, ids.shape[1] :]
        assert reply.output == local.tokenizer.decode(out, skip_special_tokens=True)
        assert reply.tokens_in == ids.shape[1]
    assert [r.outcome for r in replies] == [Outcome.TRUNCATED, Outcome.OK]
    assert "Paris" in replies[1].output


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="llm.model=") as error:
        TransformersEngine(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def in_vllm(
    pairs: list[Score], short_pairs: list[Score], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[str, str]]]:
    """(output, outcome) of vLLM in fp32 and bf16, each in a process of its own, both at once."""
    folder, model = tmp_path_factory.mktemp("vllm"), locate(SMOLLM2)
    (folder / "score.py").write_text(IN_VLLM)
    processes = {}
    for dtype, asked in (("fp32", pairs), ("bf16", short_pairs)):
        log = (folder / f"{dtype}.log").open("w")
        command = [sys.executable, str(folder / "score.py"), model, dtype, str(folder / f"{dtype}.json")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True)
        process.stdin.write(json.dumps([(pair.prefix, pair.target) for pair in asked]))
        process.stdin.close()
        processes[dtype] = process
    for dtype, process in processes.items():
        assert process.wait(timeout=400) == 0, (folder / f"{dtype}.log").read_text()[-4000:]
    return {dtype: json.loads((folder / f"{dtype}.json").read_text()) for dtype in processes}


@needs_vllm
def test_vllm_and_transformers_agree_in_fp32(
    in_vllm: dict[str, list[tuple[str, str]]], pairs: list[Score], fp32: list[float]
) -> None:
    agree(fp32, nats([Reply(text, Outcome(outcome)) for text, outcome in in_vllm["fp32"][: len(pairs)]]))


@needs_vllm
def test_vllm_and_transformers_agree_in_bf16(in_vllm: dict[str, list[tuple[str, str]]], short_pairs: list[Score]) -> None:
    ours = nats(ask(TransformersEngine(SMOLLM2, dtype="bf16"), short_pairs))
    agree(ours, nats([Reply(text, Outcome(outcome)) for text, outcome in in_vllm["bf16"][: len(short_pairs)]]))


@needs_vllm
def test_vllm_generates_after_the_chat_template(in_vllm: dict[str, list[tuple[str, str]]], pairs: list[Score]) -> None:
    assert "Paris" in in_vllm["fp32"][len(pairs)][0]


@needs_vllm
def test_a_prompt_too_long_for_vllm_fails_alone(in_vllm: dict[str, list[tuple[str, str]]], pairs: list[Score]) -> None:
    for text, outcome in in_vllm["fp32"][len(pairs) + 1 :]:
        assert outcome == Outcome.ERROR
        assert "512" in text


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with serve() as running:
        yield running


@pytest.fixture
def client(server: LLMServer) -> Iterator[Callable[..., OpenAIEngine]]:
    """Open engines that ask `server` and wait little between tries; all are closed after the test."""
    with contextlib.ExitStack() as opened:

        def connect(**options: object) -> OpenAIEngine:
            engine = OpenAIEngine(**({"model": "scripted", "base_urls": [server.url], "backoff": 0.01} | options))
            opened.callback(engine.close)
            return engine

        yield connect


Connect = Callable[..., OpenAIEngine]


def chats(number: int) -> list[Generate]:
    return [Generate((("system", "Count."), ("user", f"number {n}")), max_tokens=5, temperature=0.5) for n in range(number)]


def test_openai_sends_the_chat_and_reads_the_answer(server: LLMServer, client: Connect) -> None:
    server.answer = lambda messages: messages[-1]["content"].upper()
    replies = ask(client(), chats(20))
    assert [r.output for r in replies] == [f"NUMBER {n}" for n in range(20)]
    assert {(r.outcome, r.tokens_in, r.tokens_out, r.tokens_cached) for r in replies} == {(Outcome.OK, 7, 3, 2)}
    path, _, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body["messages"][0] == {"role": "system", "content": "Count."}
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("scripted", 5, 0.5)


def test_openai_scores_the_target_alone(server: LLMServer, client: Connect) -> None:
    (reply,) = ask(client(), [BEES])
    assert json.loads(reply.output) == {"logprob": -14.0, "tokens": 4}
    assert reply.mean_logprob() == -3.5
    path, _, body = server.seen[0]
    assert path == "/v1/completions"
    assert body["prompt"] == BEES.prefix + BEES.target and body["echo"] is True


def test_the_servers_own_tokens_are_hand_computed() -> None:
    assert words_with_logprobs("Bees make") == [("Bees", 0, None), (" make", 4, -4.0)]


@pytest.mark.parametrize("fault", ["500", "503", "429", "broken JSON", "not JSON", "no choices", "half a body"])
def test_openai_tries_again_after_a_passing_fault(server: LLMServer, client: Connect, fault: str, no_wait: list) -> None:
    server.fault = lambda number, body: fault if number < 3 else None
    replies = ask(client(), chats(6))
    assert [(r.output, r.outcome) for r in replies] == [("My selection:[]", Outcome.OK)] * 6
    assert len(server.seen) == 9 and len(no_wait) == 3


@pytest.mark.parametrize("fault", ["500", "429", "broken JSON", "no choices"])
def test_a_lasting_fault_is_an_error_of_its_call_alone(server: LLMServer, client: Connect, fault: str, no_wait: list) -> None:
    server.fault = lambda number, body: fault if body["messages"][-1]["content"] == "number 3" else None
    replies = ask(client(retries=2), chats(6))
    assert [r.outcome for r in replies] == [Outcome.OK] * 3 + [Outcome.ERROR] + [Outcome.OK] * 2
    assert len(server.seen) == 5 + 3 and len(no_wait) == 2


def test_another_4xx_is_final_for_its_call_only(server: LLMServer, client: Connect) -> None:
    server.fault = lambda number, body: "400" if body["messages"][-1]["content"] == "number 3" else None
    replies = ask(client(), chats(6))
    assert [r.outcome for r in replies] == [Outcome.OK] * 3 + [Outcome.ERROR] + [Outcome.OK] * 2
    assert replies[3].output == "400 the prompt is too long"
    assert len(server.seen) == 6


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the engine would have waited between tries; it waits none of them."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(openai_module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return waits


def test_retry_after_is_obeyed(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.fault = lambda number, body: "429" if number < 2 else None
    (reply,) = ask(client(), [HELLO])
    assert reply.outcome == Outcome.OK
    assert no_wait == [17.0, 17.0]


def test_waits_grow_exponentially(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.fault = lambda number, body: "500"
    ask(client(backoff=1.0, retries=4), [HELLO])
    assert all(0.5 * 2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(no_wait))
    assert len(no_wait) == 4


def test_a_slow_answer_is_waited_for_and_one_too_slow_is_tried_again(server: LLMServer, client: Connect) -> None:
    server.delay = 0.3
    (reply,) = ask(client(timeout=30), [HELLO])
    assert reply.outcome == Outcome.OK and reply.seconds > 0
    server.delay = 3.0

    def quicken(number: int, body: dict) -> None:
        server.delay = 0.0

    server.fault = quicken
    (reply,) = ask(client(timeout=0.5), [HELLO])
    assert reply.outcome == Outcome.OK
    assert len(server.seen) == 3


def test_calls_that_queue_for_a_connection_do_not_time_out(server: LLMServer, client: Connect) -> None:
    server.delay = 0.4
    replies = ask(client(window=1, timeout=1.0, retries=0), chats(6))
    assert [r.outcome for r in replies] == [Outcome.OK] * 6
    assert server.most_flying == 1


def test_calls_are_in_flight_together_up_to_the_window(server: LLMServer, client: Connect) -> None:
    server.delay = 0.3
    ask(client(window=4), chats(12))
    assert server.most_flying == 4


@pytest.mark.parametrize(
    ("text", "outcome"), [("The third one.", Outcome.OK), ("My selection:[[77]]", Outcome.OK), ("", Outcome.OK)]
)
def test_odd_answers_are_passed_on_as_they_are(server: LLMServer, client: Connect, text: str, outcome: Outcome) -> None:
    server.answer = lambda messages: text
    (reply,) = ask(client(), [HELLO])
    assert (reply.output, reply.outcome) == (text, outcome)


@pytest.mark.parametrize(
    ("fault", "output", "outcome"), [("null content", "", Outcome.OK), ("refusal", "No.", Outcome.REFUSED)]
)
def test_answers_without_text_are_read(server: LLMServer, client: Connect, fault: str, output: str, outcome: Outcome) -> None:
    server.fault = lambda number, body: fault
    (reply,) = ask(client(), [HELLO])
    assert (reply.output, reply.outcome) == (output, outcome)


def test_an_answer_cut_at_its_limit_is_truncated(server: LLMServer, client: Connect) -> None:
    server.finish_reason = "length"
    assert ask(client(), [HELLO])[0].outcome == Outcome.TRUNCATED


def test_several_servers_share_the_work_and_one_may_be_down(server: LLMServer, client: Connect) -> None:
    with serve() as second, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{dead.getsockname()[1]}/v1"
        replies = ask(client(base_urls=[server.url, gone, second.url]), chats(12))
        assert [r.outcome for r in replies] == [Outcome.OK] * 12
        assert server.seen and second.seen and len(server.seen) + len(second.seen) == 12


def test_no_server_is_one_line_that_names_the_option(client: Connect, no_wait: list[float]) -> None:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        engine = client(base_urls=[f"http://127.0.0.1:{dead.getsockname()[1]}/v1"], retries=2)
        with pytest.raises(EngineError, match="llm.base_urls.*does not answer") as error:
            ask(engine, [HELLO])
    assert "\n" not in str(error.value) and len(no_wait) == 2


def test_replies_that_came_before_the_server_went_are_given_first(client: Connect, no_wait: list[float]) -> None:
    with serve() as short_lived:
        engine = client(base_urls=[short_lived.url], retries=1)
        engine.submit(0, HELLO)
        while not short_lived.seen or short_lived.flying:
            time.sleep(0.01)
    engine.submit(1, BEES)
    given: list[int] = []
    with pytest.raises(EngineError):
        for _ in range(3):
            given += [ticket for ticket, _ in engine.step()]
    assert given == [0]


def test_the_key_goes_into_the_header_and_nowhere_else(
    server: LLMServer, client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-7391")
    server.fault = lambda number, body: "401" if number == 1 else None
    replies = ask(client(), [HELLO]) + ask(client(), [HELLO])
    assert [headers["authorization"] for _, headers, _ in server.seen] == ["Bearer sk-planted-7391"] * 2
    assert [r.outcome for r in replies] == [Outcome.OK, Outcome.ERROR]
    assert "sk-planted-7391" not in str(replies)


def test_the_key_variable_may_be_another(server: LLMServer, client: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OTHER_KEY", "sk-other")
    ask(client(), [HELLO])
    ask(client(api_key_env="OTHER_KEY"), [HELLO])
    assert [headers.get("authorization") for _, headers, _ in server.seen] == [None, "Bearer sk-other"]


def test_engines_that_load_the_same_weights_share_a_name() -> None:
    package = "uar.annotation.engines"
    names = {
        identity_of({"_target_": f"{package}.{engine}", "model": SMOLLM2, "revision": None})
        for engine in ("local.TransformersEngine", "vllm.VLLMEngine")
    }
    assert len(names) == 1 and "SmolLM2" in names.pop()
    served = {"_target_": f"{package}.openai.OpenAIEngine", "model": "m", "revision": "2"}
    assert identity_of(served) == "m@2" and identity_of(served | {"revision": None}) == "m"


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's own server with SmolLM2 in fp32."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--model", locate(SMOLLM2), "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments,
                "--dtype", "float32", "--max-model-len", "1024", "--enforce-eager",
            ],
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-4000:]
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@needs_vllm
def test_a_served_model_agrees_with_the_same_model_in_process(
    vllm_server: str, client: Connect, pairs: list[Score], fp32: list[float], local: TransformersEngine
) -> None:
    engine = client(model="smollm2", base_urls=[vllm_server])
    agree(fp32, nats(ask(engine, pairs)))
    capital = Generate((("user", "What is the capital of France?"),), 12)
    assert "Paris" in ask(engine, [capital])[0].output


@needs_vllm
def test_a_served_model_scores_text_beyond_ascii(vllm_server: str, client: Connect, local: TransformersEngine) -> None:
    prefix = "Łódź (λ 𝔘 京都 🐝🍯) — naïve café, 北海道.\n\nA question that this passage answers:"
    requests = [Score(prefix, " where is the café in Łódź?"), Score(prefix, " what is 京都 🐝?")]
    theirs = ask(client(model="smollm2", base_urls=[vllm_server]), requests)
    assert nats(theirs) == pytest.approx(nats(ask(local, requests)), abs=0.02)
