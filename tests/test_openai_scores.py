"""Log-likelihoods of texts by the `openai` engine, from servers that write tokens in their own ways."""

import json
import re
from collections.abc import Callable, Sequence

import pytest
from asking import ask
from llm_server import LLMServer
from openai_clients import BEES, Connect
from tiny_models import byte_level

from uar.errors import EngineError
from uar.llm.models.spelling import spelled
from uar.llm.record import Outcome, Score

Spell = Callable[[Sequence[bytes]], list[str]]
CAFE = Score("Łódź — [1] <0x41> 🐝\n\nA question:", " where is the café of 京都?\nand\u00a0the 🐝")


def pieces(text: str) -> list[bytes]:
    """Tokens of a model: words with the space before them, and single bytes of what is not ASCII."""
    found: list[bytes] = []
    for part in re.findall(r" ?[!-~]+|\s|[^\x00-\x7f]", text):
        found += [part.encode()] if part.isascii() else [bytes([byte]) for byte in part.encode()]
    assert b"".join(found).decode() == text
    return found


def decoded(tokens: Sequence[bytes]) -> list[str]:
    return [token.decode("utf-8", "replace") for token in tokens]


def completed(tokens: Sequence[bytes]) -> list[str]:
    """A character stands at its last byte, as vLLM lists it."""
    shown, waiting = [], b""
    for token in tokens:
        waiting += token
        try:
            shown.append(waiting.decode())
            waiting = b""
        except UnicodeDecodeError:
            shown.append("")
    return shown


def named_bytes(tokens: Sequence[bytes]) -> list[str]:
    return [token.decode() if token.isascii() else "bytes:" + "".join(f"\\x{byte:02x}" for byte in token) for token in tokens]


def sentencepiece(tokens: Sequence[bytes]) -> list[str]:
    return [
        token.decode().replace(" ", "▁") if token[:1].isascii() and token != b"\n" else f"<0x{token[0]:02X}>"
        for token in tokens
    ]


def stripped(tokens: Sequence[bytes]) -> list[str]:
    """SentencePiece's tokens decoded one by one lose the space before them."""
    return [text.removeprefix(" ") for text in decoded(tokens)]


def raw(tokens: Sequence[bytes]) -> list[str]:
    return [byte_level(token) for token in tokens]


def answer(spell: Spell, begin: Sequence[str]) -> Callable[[str], list[tuple[str, float | None]]]:
    """What a server lists: its own first tokens, then the prompt's; the nth of these has a log-likelihood of -n."""

    def listed(prompt: str) -> list[tuple[str, float | None]]:
        shown = spell(pieces(prompt))
        values: list[float | None] = [-float(n) for n in range(len(shown))]
        if not begin:
            values[0] = None
        return [*((token, None) for token in begin), *zip(shown, values, strict=True)]

    return listed


@pytest.mark.parametrize("begin", [[], ["<s>"], ["<|begin_of_text|>"], ["[gMASK]", "<sop>"], [""]])
@pytest.mark.parametrize("spell", [decoded, completed, named_bytes, sentencepiece, stripped, raw])
def test_the_tokens_of_the_target_are_scored(server: LLMServer, client: Connect, spell: Spell, begin: list[str]) -> None:
    server.listed = answer(spell, begin)
    replies = ask(client(), [CAFE, BEES])
    for request, reply in zip((CAFE, BEES), replies, strict=True):
        assert reply.outcome == Outcome.OK, reply.output
        before, whole = len(pieces(request.prefix)), len(pieces(request.prefix + request.target))
        assert json.loads(reply.output) == {"logprob": -sum(range(before, whole)), "tokens": whole - before}


def lower(tokens: Sequence[bytes]) -> list[str]:
    return [text.lower() for text in decoded(tokens)]


def joined(tokens: Sequence[bytes]) -> list[str]:
    """The last word of a prefix is one token with the target's first."""
    text = "\0".join(decoded(tokens))
    return re.sub(":\0 ", ": ", text).split("\0")


def cut(tokens: Sequence[bytes]) -> list[str]:
    return decoded(tokens)[-3:]


def numbered(tokens: Sequence[bytes]) -> list[str]:
    return [f"token_id:{n}" for n in range(len(tokens))]


@pytest.mark.parametrize("spell", [lower, joined, cut, numbered])
def test_tokens_that_do_not_spell_the_target_are_no_score(server: LLMServer, client: Connect, spell: Spell) -> None:
    request = Score("Bees.\n\nA question:", " what do Bees make, and why")
    honest, told = answer(decoded, ["<s>"]), answer(spell, ["<s>"])
    server.listed = lambda prompt: (told if prompt == request.prefix + request.target else honest)(prompt)
    (reply, other) = ask(client(), [request, BEES])
    assert other.outcome == Outcome.OK
    assert reply.outcome == Outcome.ERROR and server.url in reply.output
    assert "lists no tokens that spell the text" in reply.output and "\n" not in reply.output


@pytest.mark.parametrize("fault", ["no logprobs", "no echo", "no such field", "reply alone"])
def test_a_server_that_scores_no_prompt_is_told_after_one_call(server: LLMServer, client: Connect, fault: str) -> None:
    server.fault = lambda number, body: fault
    engine = client()
    for ticket in range(20):
        engine.submit(ticket, Score(f"A long passage {ticket} " * 50, " what is it"))
    with pytest.raises(EngineError, match="cannot score a text") as error:
        engine.step()
    assert server.url in str(error.value) and "llm=transformers" in str(error.value) and "\n" not in str(error.value)
    assert len(server.seen) == 1


def test_a_first_call_that_fails_for_a_while_holds_nobody_up(server: LLMServer, client: Connect, no_wait: list[float]) -> None:
    server.fault = lambda number, body: "503" if number < 2 else None
    assert [reply.outcome for reply in ask(client(), [BEES, BEES, BEES])] == [Outcome.OK] * 3
    assert len(server.seen) == 2 + 3


def test_a_call_that_is_refused_for_another_reason_fails_alone(server: LLMServer, client: Connect) -> None:
    server.fault = lambda number, body: "400" if number == 0 else None
    assert [reply.outcome for reply in ask(client(), [CAFE, BEES])].count(Outcome.ERROR) == 1


@pytest.mark.parametrize(
    ("tokens", "places"),
    [
        (["a", ":", " b", " c", " more"], range(2, 4)),
        (["a", ":", " b", " c"], range(2, 4)),  # the server's own token is not listed
        (["a", ":", "", "b", " c", "!"], range(2, 5)),  # "▁" and "b", decoded
        (["a", ": ", "b", " c", "!"], None),
        (["a", ": b", " c", "!"], None),
        ([" b", " c", "!"], None),
        (["a", ":", " b", " c", "!", "?"], None),
        ([], None),
    ],
)
def test_the_border_of_the_target_lies_between_tokens(tokens: list[str], places: range | None) -> None:
    assert spelled(tokens, "a:", " b c") == places
