"""The vllm engine, in a process of its own, against the transformers engine."""

import importlib.util
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from asking import ask, beginnings, nats
from conftest import SMOLLM2
from scipy.stats import spearmanr

from uar.annotation.parsing import parse_ranking, parse_selection, ranking_pattern, selection_pattern
from uar.llm.models.tokens import text_ids
from uar.llm.models.transformers import Transformers
from uar.llm.record import Choose, Generate, Outcome, Reply, Request, Score
from uar.machine.model_files import locate

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
LONGEST = 512
IN_VLLM = """
import pickle, sys
from uar.llm.models.vllm import VLLM
from uar.llm.record import Choose, Generate
from uar.errors import EngineError

def ask(engine, requests, follow_up=None):
    "Replies by number, in the order they came; `follow_up`: what is asked as soon as one of them is there."
    for ticket, request in enumerate(requests):
        engine.submit(ticket, request)
    replies, waiting = {}, set(range(len(requests)))
    while waiting:
        for ticket, reply in engine.step():
            waiting.remove(ticket)
            replies[ticket] = reply
            if follow_up and ticket < len(requests):
                again = requests[ticket].messages + (("assistant", reply.output), ("user", follow_up))
                engine.submit(ticket + len(requests), Generate(again, 4))
                waiting.add(ticket + len(requests))
    return replies

def main(model, dtype, asked, told):
    engine = VLLM(model, dtype=dtype, head_dtype="fp32", max_model_len=512, kv_gib=1, max_num_seqs=2)
    with open(asked, "rb") as file:
        at_once, dependent, follow_up = pickle.load(file)
    replies = [ask(engine, at_once), ask(engine, dependent, follow_up)]
    engine.reset_prefix_cache()
    engine._most_in_flight = 200  # as if the cache held a prompt and a half
    replies.append(ask(engine, dependent, follow_up))
    try:
        engine.submit(0, Choose((("user", "Useful?"),), ("Yes", "not at all useful")))
        refused = ""
    except EngineError as error:
        refused = str(error)
    idle = engine.step()
    engine.close()
    with open(told, "wb") as file:
        pickle.dump([*replies, refused, idle], file)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""
USEFUL = "Bees make honey from nectar. " * 12 + "How useful is this, from 0 to 3?"
SELECTION, RANKING = selection_pattern([1, 4, 7, 16], 2), ranking_pattern([2, 3, 16])
PAIRS, SHORT_PAIRS = {"questions": 2, "words": 40}, {"questions": 4, "words": 12}
OTHERS: dict[str, Request] = {
    "capital": Generate((("user", "What is the capital of France?"),), 12),
    "early end": Generate((("user", "What is the capital of France?"),), 60, until=r"\W*(\w+\W+){3}"),
    "long score": Score("word " * 600, " question"),
    "long chat": Generate((("user", "word " * 500),), 100),
    "long thoughts": Generate((("user", "word " * 300),), 12, reasoning_tokens=300),
    "grades": Choose((("user", USEFUL),), ("0", "1", "2", "3")),
    "yes": Choose((("user", "Is honey sweet? Yes or no?"),), ("Yes", "No")),
    "selection": Generate((("user", "Select passages."),), 40, pattern=SELECTION),
    "ranking": Generate((("user", "Rank the passages."),), 40, pattern=RANKING),
    "broken pattern": Generate((("user", "Rank the passages."),), 40, pattern="(("),
    "one target": Score(USEFUL, " Three, since it says what they do."),
    "another target": Score(USEFUL, " Three, and nothing else."),
    "a target again": Score(USEFUL, " Three, since it says what they do."),
    "block end": Score("", ""),  # a prefix that ends where a block of the cache does
    "block end again": Score("", ""),
    "story": Generate((("user", "Tell me a story."),), 12, temperature=1.0, sample=1),
    "story again": Generate((("user", "Tell me a story."),), 12, temperature=1.0, sample=1),
    "another story": Generate((("user", "Tell me a story."),), 12, temperature=1.0, sample=2),
}
CHAINS = [Generate((("user", f"Here are {n} words. " + f"word{n} " * 60 + "Count them."),), 8) for n in range(6)]


class InVLLM(NamedTuple):
    """What one process answered. `order`: numbers of dependent requests as their replies came; `tight`: and where the cache
    has little room."""

    pairs: list[Reply]
    others: dict[str, Reply]
    order: list[int]
    dependent: dict[int, Reply]
    tight: dict[int, Reply]
    refused: str
    idle: list


@pytest.fixture(scope="module")
def others(local: Transformers) -> dict[str, Request]:
    prefix = " bee" * 192
    assert len(text_ids(local.tokenizer, prefix)) == 192
    ends = {name: Score(prefix, " honey and wax" + " and more" * 20) for name in ("block end", "block end again")}
    return OTHERS | ends


@pytest.fixture(scope="module")
def in_vllm(others: dict[str, Request], tmp_path_factory: pytest.TempPathFactory) -> dict[str, InVLLM]:
    """vLLM in fp32 and bf16, each in a process of its own, both at once; all but the pairs is asked in fp32 alone."""
    folder, model = tmp_path_factory.mktemp("vllm"), locate(SMOLLM2)
    (folder / "ask.py").write_text(IN_VLLM)
    asked = {
        "fp32": ([*beginnings(**PAIRS), *others.values()], CHAINS, "Go on."),
        "bf16": (beginnings(**SHORT_PAIRS), [], ""),
    }
    one_core = {**os.environ, "OMP_NUM_THREADS": "1"}  # each, since threads that share a core wait for each other
    processes = {}
    for dtype, requests in asked.items():
        (folder / f"{dtype}.asked").write_bytes(pickle.dumps(requests))
        command = [sys.executable, str(folder / "ask.py"), model, dtype, f"{dtype}.asked", f"{dtype}.told"]
        with (folder / f"{dtype}.log").open("w") as log:
            processes[dtype] = subprocess.Popen(command, cwd=folder, env=one_core, stdout=log, stderr=log)
    found = {}
    for dtype, process in processes.items():
        assert process.wait(timeout=500) == 0, (folder / f"{dtype}.log").read_text()[-4000:]
        replies, dependent, tight, refused, idle = pickle.loads((folder / f"{dtype}.told").read_bytes())
        in_order = [replies[n] for n in range(len(replies))]
        pairs = len(asked[dtype][0]) - (len(others) if dtype == "fp32" else 0)
        named = dict(zip(others, in_order[pairs:], strict=False))
        found[dtype] = InVLLM(in_order[:pairs], named, list(dependent), dependent, tight, refused, idle)
    return found


@pytest.fixture(scope="module")
def fp32(in_vllm: dict[str, InVLLM]) -> InVLLM:
    return in_vllm["fp32"]


def agree(ours: Sequence[float], theirs: Sequence[float]) -> None:
    """The two are one scale: under 0.05 nat a token apart on average, and in one order."""
    gap = sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
    assert gap < 0.05
    assert spearmanr(ours, theirs).statistic > 0.99
    assert max(ours) - min(ours) > 1


def test_log_likelihoods_agree_with_transformers_in_fp32(fp32: InVLLM, local: Transformers) -> None:
    pairs = beginnings(**PAIRS)
    assert nats(fp32.pairs) == pytest.approx(nats(ask(local, pairs)), abs=1e-3)
    lengths = [len(text_ids(local.tokenizer, pair.prefix)) + len(text_ids(local.tokenizer, pair.target)) for pair in pairs]
    assert [reply.tokens_in for reply in fp32.pairs] == lengths


def test_log_likelihoods_agree_with_transformers_in_bf16(in_vllm: dict[str, InVLLM]) -> None:
    ours = nats(ask(Transformers(SMOLLM2, dtype="bf16"), beginnings(**SHORT_PAIRS)))
    agree(ours, nats(in_vllm["bf16"].pairs))


@pytest.mark.parametrize("name", ["one target", "another target", "a target again", "block end", "block end again"])
def test_targets_that_share_a_prefix_keep_their_own_values(
    fp32: InVLLM, local: Transformers, others: dict[str, Request], name: str
) -> None:
    assert nats([fp32.others[name]]) == pytest.approx(nats(ask(local, [others[name]])), abs=1e-3)


def test_a_shared_prefix_is_read_once(fp32: InVLLM) -> None:
    first, second = fp32.others["one target"], fp32.others["another target"]
    assert first.tokens_cached == 0
    assert second.tokens_cached >= 64


def test_choices_agree_with_transformers(fp32: InVLLM, local: Transformers, others: dict[str, Request]) -> None:
    for name in ("grades", "yes"):
        (ours,) = ask(local, [others[name]])
        assert fp32.others[name].choice_logprobs() == pytest.approx(ours.choice_logprobs(), abs=1e-3)
        assert fp32.others[name].tokens_in == ours.tokens_in


def test_a_choice_of_several_tokens_is_refused_by_name(fp32: InVLLM) -> None:
    assert "'not at all useful'" in fp32.refused


def test_a_pattern_is_followed_to_the_letter(fp32: InVLLM) -> None:
    selection, ranking = fp32.others["selection"], fp32.others["ranking"]
    assert re.fullmatch(SELECTION, selection.output) and re.fullmatch(RANKING, ranking.output)
    assert parse_selection(selection, [1, 4, 7, 16])[0] == parse_ranking(ranking, [2, 3, 16])[0] == Outcome.OK


def test_it_writes_after_the_chat_template(fp32: InVLLM, local: Transformers) -> None:
    (ours,) = ask(local, [OTHERS["capital"]])
    assert "Paris" in fp32.others["capital"].output
    assert fp32.others["capital"].output == ours.output
    assert fp32.others["capital"].tokens_in == ours.tokens_in


def test_a_text_ends_as_soon_as_it_may(fp32: InVLLM, local: Transformers) -> None:
    (ours,) = ask(local, [OTHERS["early end"]])
    theirs = fp32.others["early end"]
    assert (theirs.output, theirs.outcome) == (ours.output, Outcome.TRUNCATED)
    assert 3 <= theirs.tokens_out == ours.tokens_out < 8


def test_a_sample_is_the_same_again_and_another_differs(fp32: InVLLM) -> None:
    first, again, other = (fp32.others[name].output for name in ("story", "story again", "another story"))
    assert first == again != other


@pytest.mark.parametrize("name", ["long score", "long chat", "long thoughts", "broken pattern"])
def test_a_request_that_cannot_be_answered_fails_alone(fp32: InVLLM, name: str) -> None:
    reply = fp32.others[name]
    assert reply.outcome == Outcome.ERROR
    assert "pattern" in name or str(LONGEST) in reply.output


def test_a_follow_up_joins_those_that_run_and_finds_its_beginning_in_the_cache(fp32: InVLLM) -> None:
    assert sorted(fp32.order) == list(range(2 * len(CHAINS)))
    assert fp32.order.index(len(CHAINS)) < fp32.order.index(len(CHAINS) - 1)  # before the last of the first ones
    for n in range(len(CHAINS)):
        opening, follow_up = fp32.dependent[n], fp32.dependent[n + len(CHAINS)]
        assert follow_up.tokens_in > opening.tokens_in
        assert opening.tokens_in - 32 <= follow_up.tokens_cached < follow_up.tokens_in


def test_new_prompts_wait_where_they_would_drive_out_what_a_chain_goes_on_with(fp32: InVLLM) -> None:
    in_turn = [n for first in range(len(CHAINS)) for n in (first, first + len(CHAINS))]
    assert list(fp32.tight) == in_turn
    assert {n: reply.output for n, reply in fp32.tight.items()} == {n: reply.output for n, reply in fp32.dependent.items()}


def test_nothing_is_given_where_nothing_was_asked(fp32: InVLLM) -> None:
    assert fp32.idle == []
    assert all(reply.seconds > 0 for reply in fp32.pairs)
