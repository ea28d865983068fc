"""Engines against plain forwards of the model, and against each other."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import SMOLLM2
from scipy.stats import spearmanr

from uar.annotation.engines import Engine, identity_of
from uar.annotation.engines.local import TransformersEngine
from uar.annotation.engines.packing import pack
from uar.annotation.prompts import load_text
from uar.annotation.record import Generate, Outcome, Reply, Request, Score
from uar.collections import open_collection
from uar.errors import EngineError
from uar.models import locate

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
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


def test_engines_that_load_the_same_weights_share_a_name() -> None:
    package = "uar.annotation.engines"
    names = {
        identity_of({"_target_": f"{package}.{engine}", "model": SMOLLM2, "revision": None})
        for engine in ("local.TransformersEngine", "vllm.VLLMEngine")
    }
    assert len(names) == 1 and "SmolLM2" in names.pop()
    served = {"_target_": f"{package}.openai.OpenAIEngine", "model": "m", "revision": "2"}
    assert identity_of(served) == "m@2" and identity_of(served | {"revision": None}) == "m"
