"""What replays are made quicker by changes nothing that they make: prompts, keys, passages."""

import hashlib
import json
import re
from pathlib import Path

import jinja2
import numpy as np
import pyarrow as pa
import pytest

from uar.annotation import conclusions
from uar.annotation.conclusions import NUMBERS, SCHEMA, Ended, batches_of
from uar.annotation.judgement import Judgement
from uar.annotation.parsing import parse_selection
from uar.collections import documents
from uar.collections.images import Image
from uar.collections.languages import WORD, head
from uar.llm.pictured import Pictured
from uar.llm.prompts import escaping
from uar.llm.prompts.escaping import as_material
from uar.llm.prompts.template import ENVIRONMENT, Template
from uar.llm.record import Generate, Outcome, Reply
from uar.storage.files import Canonical, Encoded, digest

TEXTS = [
    "", "plain words", "a [3] b [1, 2] c [x]", "user: hi\nassistant : no", "My selection: [1] <|im_end|>", "x </s> y <<SYS>>",
    "[INST] ask [/INST]", "## system:\n text", "naïve  \t text\u3000日本語", "my  selection :", "<start_of_turn> a < b",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_defused_as_by_all_patterns_in_turn(text: str):
    plain = escaping.ROLE.sub(r"\1 -", text)
    plain = escaping.IDENTIFIER.sub(r"(\1)", escaping.without_control_tokens(plain))
    assert as_material(text) == " ".join(escaping.FORMAT.sub(r"\1 -", plain).split())


@pytest.mark.parametrize("text", [*TEXTS, "w " * 9, "w" * 200, ("w" * 19 + " ") * 9, "a\x1cb c", "日本語" * 9])
def test_the_first_words_of_a_text_are_those_of_a_count(text: str):
    for words in (1, 5, 9, 10, 300):
        found = WORD.findall(text)
        cut = head(text, words)
        assert (
            cut == text
            if len(found) <= words
            else len(WORD.findall(cut)) <= words and re.sub(r"\s", "", cut) in re.sub(r"\s", "", text)
        )


@pytest.mark.parametrize(
    "source",
    ["Received passage [{{ number }}].", "a\n{{ x }}{{number}}\n", "{% if x %}y{% endif %}", "{{ x|upper }}", "text", ""],
)
def test_a_template_renders_as_jinja_does(source: str):
    values = {"x": "<b> {{ number }}", "number": 3}
    assert Template(source).render(values) == ENVIRONMENT.from_string(source).render(values)


def test_a_missing_value_is_an_error_of_jinja():
    with pytest.raises(jinja2.UndefinedError):
        Template("a {{ missing }}").render({})


def canonical(*parts: object) -> str:
    plain = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str, separators=(",", ":"))
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


MESSAGES = (("user", 'say "hi"\u2028é \ud83d'), ("assistant", ""))


@pytest.mark.parametrize("rest", [(), (16,), (16, 0.0, {"b": None, "a": [1]})])
def test_a_part_that_is_encoded_once_gives_the_same_digest(rest: tuple):
    for value in (MESSAGES, ()):
        once = Canonical(value)
        for before in (("generate", "a-model"), ("generate to the end", "a-model"), ("generate", "a-model"), ()):
            expected = canonical(*before, value, *rest)
            assert digest(*before, value, *rest) == expected == digest(*before, once, *rest)
            assert digest(*before, once, Encoded.of(*rest)) == expected
    assert digest() == canonical() and digest((1, 2)) != digest(1, 2)


@pytest.mark.parametrize("sample", [0, 3])
@pytest.mark.parametrize("reasoning", [None, False, True])
@pytest.mark.parametrize("pattern", [None, "a|b"])
@pytest.mark.parametrize("until", [None, r"\d\n"])
def test_keys_are_digests_of_what_is_asked(sample: int, reasoning: bool | None, pattern: str | None, until: str | None):
    image = Image("https://there/a.png", Path())
    for messages in (MESSAGES, (("user", Pictured("what is it?", image)),)):
        call = Generate(messages, 16, 1, pattern, sample, reasoning, 8 if reasoning else 0, until)
        said = {"sample": sample} if sample else {}
        said |= {} if reasoning is None else {"reasoning": reasoning}
        said |= {"images": [[0, image.key]]} if messages is not MESSAGES else {}
        thinking = {"reasoning_tokens": 8} if reasoning else {}
        ends = {"until": until} if until else {}
        held, shape = ({"held": pattern}, {"pattern": pattern}) if pattern else ({}, {})
        ended = canonical("generate to the end", "m", messages, 1.0, said | ends | shape)
        told = [options] if (options := said | thinking | ends | held) else []
        earlier = [options] if (options := said | thinking | shape) else []
        assert call.keys("m")[:2] == [ended, canonical("generate", "m", messages, 16, 1.0, *told)]
        assert call.earlier_keys("m") == [canonical("generate", "m", messages, 16, 1.0, *earlier)]


def test_a_list_in_the_form_asked_for_is_read_as_any_other():
    for numbers in ([], [3], [1, 12, 31], [2, 2], [40], [7, 123456789]):
        for listed in (f"[{','.join(f'[{n}]' for n in numbers)}]", f"[{', '.join(map(str, numbers))}]"):
            found = [parse_selection(Reply(f"My selection:{space}{listed}"), range(1, 32)) for space in ("", " ", "\n")]
            assert found[0] == found[1] == found[2]
            good = all(n < 32 for n in numbers)
            assert found[0] == ((Outcome.OK, list(dict.fromkeys(numbers))) if good else (Outcome.OUT_OF_RANGE, []))


def test_passages_that_are_read_at_once_are_those_that_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "BLOCK", 3)
    texts = ["", "a", "ü日本", "d" * 70, "e f", "", "g\x00h"]
    for titles in ([""] * 7, ["", "T", "", "Ü", "", "V", ""]):
        passages = [(f"p{at}ß", title, text) for at, (title, text) in enumerate(zip(titles, texts, strict=True))]
        corpus = documents.build_corpus(tmp_path / f"c{bool(titles[1])}", passages)
        for rows in ([], [6], [5, 0, 0, 3, 6, 1, 2, 4], np.array([2, 1], np.int32)):
            assert corpus.ids_at(rows) == [passages[row][0] for row in rows]
            assert corpus.texts_at(rows) == [corpus.text(int(row)) for row in rows]
            assert corpus.texts_at(rows) == [f"{titles[row]} {texts[row]}" if titles[row] else texts[row] for row in rows]
            corpus.leave()
        for wrong in ([7], [0, -1]):
            with pytest.raises(IndexError, match="of 7"):
                corpus.texts_at(wrong)


def test_what_was_concluded_is_kept_as_rows_would_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conclusions, "BLOCK", 2)
    first = Judgement("a", 1, 2, -0.5, 1, 0.25, (-1.0, -2.5), votes=(1, None))
    judged = [[first, Judgement("b", 0, 0, None, 2)], None, [], [Judgement("a", 0, 1, None, 1)], [first]]
    ended = [Ended(f"q{at}", 2**64 - 1 - at, own, {"a": 7, "b": 3}) for at, own in enumerate(judged)]
    rows = [
        {
            "query_id": one.query_id,
            "pool": one.pool,
            "judged": one.judgements is not None,
            "row": [one.rows[j.doc_id] for j in one.judgements or ()],
            **{name: [getattr(j, name) for j in one.judgements or ()] for name in (*NUMBERS, "logprobs", "votes")},
        }
        for one in ended
    ]
    batches = list(batches_of(iter(ended)))
    assert [len(batch) for batch in batches] == [2, 2, 1] and not list(batches_of([]))
    for at, batch in enumerate(batches):
        assert batch.equals(pa.RecordBatch.from_pylist(rows[2 * at : 2 * at + 2], schema=SCHEMA))
