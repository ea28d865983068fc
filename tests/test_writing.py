"""Texts that a model of this process writes: batches whose prompts begin alike, against the model's own `generate`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from asking import ask
from tiny_models import tiny_llama

from uar.llm.models.ending import early_end
from uar.llm.models.tokens import chat_ids
from uar.llm.models.transformers import FIRST_ROWS, GROWTH, Transformers
from uar.llm.record import Generate, Outcome

CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
ALIKE = "Questions that people ask of bees, and what bees have to say of it: "


@pytest.fixture
def engine(tmp_path: Path) -> Transformers:
    torch.manual_seed(3)  # the head, which the folder lacks
    return Transformers(tiny_llama(tmp_path / "model", chat_template=CHAT), dtype="fp32")


def own(engine: Transformers, request: Generate) -> str:
    """What the model writes after this prompt alone, with nothing of ours."""
    ids = torch.tensor([chat_ids(engine.tokenizer, request)])
    with torch.inference_mode():
        whole = torch.ones_like(ids)
        out = engine.model.generate(ids, attention_mask=whole, max_new_tokens=request.max_tokens, do_sample=False)
    written = out[0, ids.shape[1] :].tolist()
    end = next((at for at, token in enumerate(written) if token in engine._stops), None)
    return engine.tokenizer.decode(written[:end], skip_special_tokens=True)


def test_texts_that_begin_alike_are_those_of_each_prompt_alone(engine: Transformers) -> None:
    requests = [Generate((("user", ALIKE + "buzz" * n),), 24) for n in range(1, 12)]
    requests += [Generate((("user", "x" * n),), 24) for n in (3, 50)]  # that begin otherwise
    replies = ask(engine, requests)
    assert [reply.output for reply in replies] == [own(engine, request) for request in requests]
    alike = len(chat_ids(engine.tokenizer, Generate((("user", ALIKE),), 1))) - 1
    cached = [reply.tokens_cached for reply in replies]
    assert sum(n >= alike for n in cached) >= 7 and all(n < r.tokens_in for n, r in zip(cached, replies, strict=True))
    assert sum(n == 0 for n in cached) >= 2  # of whom one is the first, and one has another beginning


def test_rows_that_ended_leave_the_batch_and_the_others_go_on(engine: Transformers) -> None:
    prompts = [[5 + 7 * n % 200 for n in range(40)] + [9 + row] * (3 * row + 1) for row in range(6)]
    seen: list[torch.Tensor] = []

    def choose(logits: torch.Tensor) -> torch.Tensor:
        seen.append(logits)
        return logits.argmax(-1)

    with torch.inference_mode():
        assert engine._writing.shared(prompts) == (40, False)
        on = [lambda written: None] * 6
        whole = engine._writing.write(prompts, 20, set(), on, choose)
        stop = whole[2][6]
        ends = [next((at for at, token in enumerate(row, start=1) if token == stop), 20) for row in whole]
        assert engine._writing.shared(prompts) == (40, True)
        seen.clear()
        stopped = engine._writing.write(prompts, 20, {stop}, on, choose)
        assert stopped == [row[:end] for row, end in zip(whole, ends, strict=True)]
        assert len(seen) == max(ends) and len(seen[0]) == 6 > len(seen[-1])
        alone = engine.model(torch.tensor([prompts[0] + whole[0][:1]])).logits[0, -1]
    torch.testing.assert_close(seen[1][0], alone, atol=1e-5, rtol=0)  # fp32, sums in another order


def test_a_beginning_is_read_once_for_later_batches_too(engine: Transformers) -> None:
    first, later = ([Generate((("user", ALIKE + word * n),), 4) for n in (1, 2)] for word in ("hum", "sting"))
    assert [r.tokens_cached == 0 for r in ask(engine, first)].count(True) == 1
    replies = ask(engine, later)
    assert all(reply.tokens_cached > 0 for reply in replies)
    assert [reply.output for reply in replies] == [own(engine, request) for request in later]


def test_the_first_batch_is_small_and_of_short_texts(engine: Transformers) -> None:
    texts = FIRST_ROWS + 2 * GROWTH * FIRST_ROWS  # of which the second batch takes all: no few are left for a third
    for ticket in range(texts):
        engine.submit(ticket, Generate((("user", ALIKE + "z" * ticket),), 2))
    assert {ticket for ticket, _ in engine.step()} == set(range(FIRST_ROWS))
    assert {ticket for ticket, _ in engine.step()} == set(range(FIRST_ROWS, texts))


def test_samples_are_drawn_by_their_seed(engine: Transformers) -> None:
    def sampled(seed: int) -> list[str]:
        return [r.output for r in ask(engine, [Generate((("user", ALIKE + w),), 12, 1.0, sample=seed) for w in ("a", "b")])]

    one = sampled(1)
    engine._rows = FIRST_ROWS
    assert sampled(1) == one != sampled(2)


@pytest.mark.parametrize("by_groups", [True, False])
def test_a_text_ends_as_soon_as_it_may_and_the_others_go_on(engine: Transformers, by_groups: bool) -> None:
    engine._likelihoods.by_groups = by_groups
    whole = [Generate((("user", ALIKE + word),), 24) for word in ("hum", "sting", "wax")]
    before = ask(engine, whole)
    early = [replace(whole[0], until="(?s:.{6})"), whole[1], replace(whole[2], until="never written")]
    replies = ask(engine, early)
    assert [reply.outcome for reply in replies] == [Outcome.TRUNCATED] * 3  # the first one is cut within a line
    assert replies[0].output[:5] == before[0].output[:5]
    assert [reply.output for reply in replies[1:]] == [reply.output for reply in before[1:]]
    if by_groups:
        assert 6 <= replies[0].tokens_out < before[0].tokens_out == replies[1].tokens_out == 24


def test_thoughts_that_the_prompt_opens_are_not_taken_for_the_reply(engine: Transformers) -> None:
    request, written = Generate((("user", "Hi."),), 8, until=".*\n"), engine.tokenizer.encode("so, bees.\n")
    for opened, outcome in (("<think>\n", None), ("<think>\n\n</think>\n\n", Outcome.OK), ("", Outcome.OK)):
        prompt = engine.tokenizer.encode("user: Hi.\n" + opened)
        assert early_end(engine.tokenizer, request, prompt)(written) == outcome
    assert early_end(engine.tokenizer, replace(request, until=None), [5])(written) is None
