"""The transformers engine against plain forwards of the model."""

import json
import logging
import random
from pathlib import Path

import pytest
import torch
from asking import ask, nats
from conftest import SMOLLM2
from omegaconf import OmegaConf
from tiny_models import begins_texts, tiny_llama

from uar.errors import EngineError
from uar.llm.models import identity_of, vllm
from uar.llm.models.packing import pack
from uar.llm.models.tokens import chat_ids, prefix_ids, text_ids
from uar.llm.models.transformers import Transformers
from uar.llm.record import Choose, Generate, Outcome, Score


@pytest.fixture(scope="module")
def plain(local: Transformers, pairs: list[Score]) -> list[float]:
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
    assert packed.allowed()[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


def test_packing_keeps_targets_of_one_prefix_apart() -> None:
    allowed = pack([([1, 2], [[3, 4], [5, 6]])]).allowed()[0, 0]
    assert allowed.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_groups_of_like_length_attend_side_by_side_as_the_row_allows() -> None:
    rng = random.Random(0)
    shapes = [(rng.randint(1, 70), [rng.randint(1, 9) for _ in range(rng.choice([1, 1, 3]))]) for _ in range(12)]
    packed = pack([([1] * prefix, [[2] * target for target in targets]) for prefix, targets in shapes])
    buckets = packed.buckets()
    assert len(buckets) > 1 and {bucket.mask is None for bucket in buckets} == {True, False}
    assert sorted(torch.cat([bucket.tokens for bucket in buckets]).tolist()) == list(range(packed.ids.numel()))
    allowed = torch.zeros_like(packed.allowed()[0, 0])
    for bucket in buckets:
        assert bucket.index.flatten()[bucket.kept].tolist() == bucket.tokens.tolist()
        groups, longest = bucket.index.shape
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        mask = bucket.mask[:, 0] if bucket.mask is not None else causal.expand(groups, -1, -1)
        real = torch.zeros(bucket.index.numel(), dtype=torch.bool)
        real[bucket.kept] = True
        for index, seen, there in zip(bucket.index, mask, real.view(groups, longest), strict=True):
            allowed[index[there][:, None], index[there][None, :]] = seen[there][:, there]
    assert torch.equal(allowed, packed.allowed()[0, 0])


def test_log_likelihoods_equal_a_plain_forward(local: Transformers, pairs: list[Score], plain: list[float]) -> None:
    assert nats(ask(local, pairs)) == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("max_tokens", [1, 300, 8192])
def test_log_likelihoods_do_not_depend_on_the_packing(
    local: Transformers, pairs: list[Score], plain: list[float], monkeypatch: pytest.MonkeyPatch, max_tokens: int
) -> None:
    monkeypatch.setattr(local, "max_tokens", max_tokens)
    assert nats(ask(local, pairs[::-2])) == pytest.approx(plain[::-2], abs=1e-3)


def test_a_prefix_is_read_once_for_the_targets_that_wait_together(
    local: Transformers, pairs: list[Score], plain: list[float]
) -> None:
    other = Score(pairs[0].prefix, " Who was it, and when?")
    together = ask(local, [pairs[0], other, pairs[1]])
    assert [r.tokens_cached > 0 for r in together] == [False, True, False]
    assert nats([together[0], together[2]]) == pytest.approx(plain[:2], abs=1e-3)
    (alone,) = ask(local, [other])
    assert alone.tokens_cached == 0
    assert together[1].mean_logprob() == pytest.approx(alone.mean_logprob(), abs=1e-3)
    assert json.loads(alone.output)["tokens"] == len(local.tokenizer(other.target)["input_ids"])


def test_log_likelihoods_are_the_same_where_a_model_computes_attention_its_own_way(
    local: Transformers, pairs: list[Score], plain: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local._likelihoods, "by_groups", False)
    other = Score(pairs[0].prefix, " Who was it, and when?")
    assert nats(ask(local, [pairs[0], other, *pairs[1:]]))[0::2] == pytest.approx([plain[0], *plain[1::2]], abs=1e-3)


def choices_after(local: Transformers, request: Choose) -> dict[str, float]:
    """Log-likelihood of each choice by a plain forward."""
    ids = torch.tensor([chat_ids(local.tokenizer, request)], device=local.model.device)
    with torch.inference_mode():
        values = local.model(ids).logits[0, -1].float().log_softmax(-1)
    return {c: float(values[local.tokenizer.convert_tokens_to_ids(c)]) for c in request.choices}


def test_choices_have_the_log_likelihood_of_the_first_token_of_the_turn(
    local: Transformers, pairs: list[Score], plain: list[float]
) -> None:
    chat = (("user", "How useful is this, from 0 to 3? Bees make honey."),)
    requests = [
        Choose(chat, ("0", "1", "2", "3")),
        Choose(chat, ("Yes", "No")),
        Choose((("user", "Yes or no?"),), ("Yes", "No")),
    ]
    replies = ask(local, [requests[0], pairs[0], *requests[1:]])
    for request, reply in zip(requests, [replies[0], *replies[2:]], strict=True):
        assert reply.choice_logprobs() == pytest.approx(choices_after(local, request), abs=1e-3)
        assert reply.tokens_in == len(chat_ids(local.tokenizer, request))
    assert replies[1].mean_logprob() == pytest.approx(plain[0], abs=1e-3)
    assert [reply.tokens_cached for reply in replies] == [0, 0, replies[0].tokens_in, 0]


def test_a_choice_of_several_tokens_is_refused_by_name(local: Transformers) -> None:
    with pytest.raises(EngineError, match="'not at all useful'"):
        local.submit(0, Choose((("user", "Useful?"),), ("2", "not at all useful")))


def test_a_sample_is_the_same_again_and_another_differs(local: Transformers) -> None:
    story = [Generate((("user", "Tell me a story."),), 12, temperature=1.0, sample=n) for n in (1, 2)]
    first, second, again = ask(local, [story[0]]) + ask(local, [story[1]]) + ask(local, [story[0]])
    assert first.output == again.output != second.output
    assert [r.output for r in ask(local, story)] == [first.output, second.output]


def test_reasoning_is_told_to_the_chat_template_and_has_tokens_of_its_own(
    local: Transformers, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{{ messages[0].content }}{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}"
    monkeypatch.setattr(local.tokenizer, "chat_template", template)
    prompts = [
        local.tokenizer.decode(chat_ids(local.tokenizer, Generate((("user", "Hi "),), 8, reasoning=told)))
        for told in (None, True, False)
    ]
    assert prompts == ["Hi ", "Hi True", "Hi False"]
    (reply,) = ask(local, [Generate((("user", "Count: one, two,"),), 2, reasoning=True, reasoning_tokens=3)])
    assert reply.tokens_out == 5


def test_transformers_generates_what_greedy_decoding_of_the_model_gives(local: Transformers) -> None:
    requests = [Generate((("user", "What is the capital of France?"),), max_tokens=n) for n in (3, 12)]
    replies = ask(local, requests)
    for request, reply in zip(requests, replies, strict=True):
        ids = torch.tensor([chat_ids(local.tokenizer, request)], device=local.model.device)
        with torch.inference_mode():
            out = local.model.generate(ids, max_new_tokens=request.max_tokens, do_sample=False)[0, ids.shape[1] :]
        assert reply.output == local.tokenizer.decode(out, skip_special_tokens=True)
        assert reply.tokens_in == ids.shape[1]
    assert [r.outcome for r in replies] == [Outcome.TRUNCATED, Outcome.OK]
    assert "Paris" in replies[1].output


CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def test_a_text_begins_as_the_tokenizer_begins_one(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "model")
    begins_texts(folder)
    engine = Transformers(folder, dtype="fp32")
    assert engine.tokenizer("a")["input_ids"][0] == engine.tokenizer.bos_token_id
    (reply,) = ask(engine, [Score("Bees", " hum")])
    prefix, target = [engine.tokenizer.bos_token_id, *ids(engine, "Bees")], ids(engine, " hum")
    assert reply.tokens_in == 1 + 4 + 4
    with torch.inference_mode():
        logits = engine.model(torch.tensor([prefix + target])).logits[0].float()
    picked = logits[len(prefix) - 1 : -1].log_softmax(-1)[range(4), target]
    assert reply.mean_logprob() == pytest.approx(float(picked.mean()), abs=1e-4)


def ids(engine: Transformers, text: str) -> list[int]:
    return engine.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_model_that_begins_no_text_is_asked_as_before(local: Transformers) -> None:
    assert prefix_ids(local.tokenizer, "Bees") == text_ids(local.tokenizer, "Bees")


def test_texts_are_the_models_own_whatever_its_folder_advises(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "model", chat_template=CHAT)
    request = [Generate((("user", "Hi."),), 12), Generate((("user", "Hi."),), 12, temperature=1.0, sample=3)]
    found = []
    for advice in ({}, {"repetition_penalty": 5.0, "top_k": 1, "top_p": 0.1, "do_sample": True}):
        (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": 256} | advice))
        torch.manual_seed(0)  # the head, which the folder lacks
        engine = Transformers(folder, dtype="fp32")
        found.append([reply.output for reply in ask(engine, request)])
    assert found[0] == found[1] and found[0][0] != found[0][1]


def test_what_is_longer_than_the_models_positions_is_refused_alone(tmp_path: Path) -> None:
    engine = Transformers(tiny_llama(tmp_path / "model", chat_template=CHAT), dtype="fp32")
    engine._longest = 30
    texts = [Generate((("user", "x" * length),), 8) for length in (15, 16, 90)]  # "user: ", a newline, and 8 to write
    scores = [Score("y" * 25, " hum"), Score("y" * 26, " hum"), Score("y" * 26, " hums"), Score("y" * 40, " hum")]
    outcomes = [(r.outcome, "30 positions" in r.output) for r in ask(engine, [*texts, *scores])]
    good, bad = (Outcome.OK, False), (Outcome.ERROR, True)
    assert [(o if told else Outcome.OK, told) for o, told in outcomes] == [good, bad, bad, good, good, bad, bad]
    assert ask(engine, [scores[3]])[0].outcome == Outcome.ERROR


def test_fewer_requests_for_texts_wait_together_than_for_scores(tmp_path: Path) -> None:
    engine = Transformers(tiny_llama(tmp_path / "model", chat_template=CHAT), dtype="fp32", window=5_000)
    ask(engine, [Score("Bees", " hum")])
    assert engine.window == 5_000
    ask(engine, [Generate((("user", "Hi."),), 1)])
    assert engine.window == 2_048


def test_a_template_without_a_systems_turn_gets_it_in_the_users(local: Transformers, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    monkeypatch.setattr(local.tokenizer, "chat_template", refuses + CHAT)
    chat = Generate((("system", "Be short."), ("user", "Hi."), ("assistant", "Yes?"), ("user", "Go.")), 8)
    shown = local.tokenizer.decode(chat_ids(local.tokenizer, chat))
    assert shown == "user: Be short.\n\nHi.\nassistant: Yes?\nuser: Go.\n"
    monkeypatch.setattr(local.tokenizer, "chat_template", "{{ raise_exception('never') }}")
    with pytest.raises(EngineError, match="chat template refuses these turns .never."):
        chat_ids(local.tokenizer, Generate((("user", "Hi."),), 8))


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nobody-knows-it"}')
    with pytest.raises(EngineError, match="llm.model=") as error:
        Transformers(str(tmp_path))
    assert "\n" not in str(error.value)


def test_engines_that_load_the_same_weights_share_a_name() -> None:
    package = "uar.llm.models"
    names = {
        identity_of({"_target_": f"{package}.{engine}", "model": SMOLLM2, "revision": None})
        for engine in ("transformers.Transformers", "vllm.VLLM")
    }
    assert len(names) == 1 and "SmolLM2" in names.pop()
    served = {"_target_": f"{package}.openai.OpenAI", "model": "m", "revision": "2"}
    assert identity_of(served) == "m@2" and identity_of(served | {"revision": None}) == "m"
    assert identity_of(served | {"extra": {}}) == "m@2"
    other = [identity_of(served | {"extra": extra}) for extra in ({"top_k": 5}, {"top_k": 6}, OmegaConf.create({"top_k": 5}))]
    assert other[0] == other[2] != other[1] and all(name.startswith("m@2+") for name in other)


def test_vllm_takes_what_a_training_leaves_of_the_gpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cleared = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: cleared.append(1))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (68 * 2**30, 80 * 2**30))
    assert vllm._share_left(0.9) == 0.9 and not cleared  # the GPU was not used, and is not opened for this
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with caplog.at_level(logging.INFO):
        assert vllm._share_left(0.5) == 0.5 and "vLLM takes" not in caplog.text
        assert vllm._share_left(0.9) == 0.83 and cleared
    assert "vLLM takes 0.83 of the GPU's memory in place of gpu_memory_utilization=0.9" in caplog.text
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 12 * 2**30)  # a retriever, which goes on encoding
    assert vllm._share_left(0.9) == 0.75
