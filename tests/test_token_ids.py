"""Token ids are made once, and anew where what they are made from changed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from uar.collections import open_collection
from uar.collections.token_ids import corpus_tokens, query_tokens, tokenise


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


def test_a_changed_text_of_a_corpus_gets_new_tokens(folder: Path, own_cache: Path, tokenizer: Callable) -> None:
    before = corpus_tokens(open_collection(f"local:{folder}:test"), tokenizer, 32)
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text().replace("four strings", "five strings"))
    after = corpus_tokens(open_collection(f"local:{folder}:test"), tokenizer, 32)
    assert [row for row in range(6) if before[row].tolist() != after[row].tolist()] == [4]


def test_no_text_at_all_gives_an_empty_cache(own_cache: Path, tokenizer: Callable) -> None:
    assert len(tokenise([], "nothing", tokenizer, 32)) == 0
