"""The `openai` engine against vLLM's own server."""

import contextlib
import importlib.util
import math
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from asking import ask, nats
from conftest import SMOLLM2
from openai_clients import Connect, clients
from test_vllm import agree

from uar.llm.models.transformers import Transformers
from uar.llm.record import Choose, Generate, Outcome, Score
from uar.machine.model_files import locate

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")


@pytest.fixture
def client(vllm_server: str) -> Iterator[Connect]:
    with clients(vllm_server) as connect:
        yield partial(connect, model="smollm2")


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's own server with SmolLM2 in fp32, in the mode in which it tells its configuration."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--model", locate(SMOLLM2), "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments,
                "--dtype", "float32", "--max-model-len", "1024", "--enforce-eager", "--max-num-seqs", "11",
            ],
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_SERVER_DEV_MODE": "1"}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-4000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
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


def test_a_served_model_agrees_with_the_same_model_in_process(
    client: Connect, pairs: list[Score], local: Transformers
) -> None:
    engine = client()
    agree(nats(ask(local, pairs)), nats(ask(engine, pairs)))
    capital = Generate((("user", "What is the capital of France?"),), 12)
    assert "Paris" in ask(engine, [capital])[0].output


def test_a_served_model_scores_text_beyond_ascii(client: Connect, local: Transformers) -> None:
    prefix = "Łódź (λ 𝔘 京都 🐝🍯) — naïve café, 北海道.\n\nA question that this passage answers:"
    requests = [Score(prefix, " where is the café in Łódź?"), Score(prefix, " what is 京都 🐝?")]
    theirs = ask(client(), requests)
    assert nats(theirs) == pytest.approx(nats(ask(local, requests)), abs=0.02)


def test_a_served_model_chooses_as_the_same_model_in_process(client: Connect, local: Transformers) -> None:
    question = "Passage: Bees make honey.\nQuestion: what do bees make?\nIs the passage useful? Answer Yes or No."
    request = Choose((("user", question),), ("Yes", "No", "Honey"))
    (reply,) = ask(client(), [request])
    ids = torch.tensor(
        [local.tokenizer.apply_chat_template(request.chat(), add_generation_prompt=True, return_dict=False)],
        device=local.model.device,
    )
    with torch.inference_mode():
        top = local.model(ids).logits[0, -1].float().log_softmax(-1).topk(20)
    spelled = [local.tokenizer.decode([token]).strip() for token in top.indices]
    wanted = {
        choice: math.log(math.fsum(v.exp() for v, s in zip(top.values, spelled, strict=True) if s == choice))
        if choice in spelled
        else float(top.values[-1])
        for choice in request.choices
    }
    assert len({"Yes", "No", "Honey"} & set(spelled)) >= 1
    assert reply.choice_logprobs() == pytest.approx(wanted, abs=0.02)


def test_a_served_model_is_held_to_a_pattern(client: Connect) -> None:
    pattern = r"My selection:\[(?:\[(?:1|2|3)\](?:,\[(?:1|2|3)\]){0,2})?\]"
    request = Generate((("user", "Tell me about bees."),), 40, pattern=pattern)
    (free,) = ask(client(), [request])
    (held,) = ask(client(constrain=True), [request])
    assert not re.fullmatch(pattern, free.output)
    assert re.fullmatch(pattern, held.output) and held.outcome == Outcome.OK


def test_vllm_tells_its_window_in_development_mode(vllm_server: str, client: Connect) -> None:
    with urllib.request.urlopen(vllm_server.removesuffix("v1") + "server_info?config_format=json", timeout=300) as told:
        told.read()  # the first time it looks the whole machine over, for longer than a probe waits
    assert client(window=None).window == 22
