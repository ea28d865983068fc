"""Dense and sparse vectors of a chat model: equal to a naive loop, searched exactly, fused, resumed, refused in a line."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from bm25s.stopwords import STOPWORDS_EN_PLUS
from conftest import SMOLLM2
from hydra.utils import instantiate
from scipy.sparse import csr_matrix
from tiny_models import tiny_bert, tiny_causal, tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.launch.entry import composed
from uar.machine.model_files import locate
from uar.retrievers.fusion.methods import fuse
from uar.retrievers.impact_search import load_impacts, save_impacts, search_impacts
from uar.retrievers.promptreps import promptreps_search
from uar.retrievers.promptreps.chat_parts import around
from uar.retrievers.promptreps.own_words import OwnWords
from uar.retrievers.promptreps.promptreps_ranker import PromptReps
from uar.retrievers.ranker import Ranker
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.tuning.passage_task import PassageTask
from uar.tuning.pool_reward import PoolReward

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
PROMPTS = {"system": "S", "query_prompt": "Q {text}.", "passage_prompt": "P {text}.", "answer": 'word: "'}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A decoder with random weights, a token a byte and a chat template."""
    path = tiny_causal(tmp_path_factory.mktemp("models") / "chat", LlamaConfig)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def opened(model: str, session: Session, **options: object) -> Ranker:
    return PromptReps(model, **{**PROMPTS, **options}).opened(session)  # type: ignore[arg-type]


def fp32() -> Session:
    return Session(lambda: ExactSearch(precision="fp32"))


def naive(path: str, text: str, prompt: str, words: set[str]) -> tuple[np.ndarray, dict[int, int]]:
    """One text alone, its whole prompt in one piece."""
    tokenizer, causal = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": prompt.replace("{text}", text)}]
    ids = tokenizer.encode(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + 'word: "')
    with torch.inference_mode():
        out = causal(torch.tensor([ids]), output_hidden_states=True)
    state = out.hidden_states[-1][0, -1]
    own = {token for word in words for token in tokenizer.encode(word, add_special_tokens=False)}
    weights = {token: round(100 * float(torch.log(1 + torch.relu(out.logits[0, -1, token])))) for token in own}
    return (state / state.norm()).numpy(), {token: weight for token, weight in weights.items() if weight}


def test_both_parts_equal_a_naive_loop(model: str, toy: Collection):
    reps = PromptReps(model, **PROMPTS, token_budget=120)._reps
    texts = [toy.corpus.text(row) for row in range(6)]
    words = [set(text.lower().strip(".").split()) - set(STOPWORDS_EN_PLUS) for text in texts]
    dense, sparse = reps.encode(texts, "passage", "en", "fp32")
    for at, (text, own) in enumerate(zip(texts, words, strict=True)):
        state, weights = naive(model, text, PROMPTS["passage_prompt"], own)
        assert dense[at] == pytest.approx(state, abs=1e-4)  # fp32, read in two parts and padded
        row = sparse[at]
        found = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
        assert found.keys() == weights.keys() and all(abs(found[t] - weights[t]) <= 1 for t in found)  # a half is rounded
    assert reps._opened("fp32")._begun  # what prompts begin with was read once


def test_a_prompt_is_split_where_the_text_goes(model: str):
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = around(tokenizer, model, "S", "P {text}.", 'word: "')
    decoded = [bytes(tokenizer.decode([i]), "utf-8").decode() for i in found.ids(tokenizer("T")["input_ids"])]
    assert "".join(decoded) == '<system>S<user>P T.<assistant>word: "'
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHAT
    refused = around(tokenizer, model, "S", "P {text}.", "")
    assert tokenizer.decode(refused.before) == "<user>S\n\nP "


def test_words_are_the_texts_own_in_lower_case_without_stop_words(model: str):
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = lambda letters: sorted({tokenizer.encode(c)[0] for c in letters})  # noqa: E731
    words = OwnWords(tokenizer, "en", most=3, expansion=0)
    assert words.tokens("The BEE, and a bee!").tolist() == ids("be")
    logits = torch.arange(300.0)[None].repeat(3, 1) / 100
    few, none, cut = words.weigh(["bee", "of the", "xyz abc"], logits)
    assert few.indices.tolist() == ids("be") and none.nnz == 10 and cut.indices.tolist() == ids("xyz")
    assert few.data.tolist() == [round(100 * np.log(1 + token / 100)) for token in ids("be")]
    more = OwnWords(tokenizer, "en", most=128, expansion=2).weigh(["zebra"], logits[:1])
    assert set(more.indices) == {*ids("zebra"), *ids("yx")}
    assert words.weigh(["bee"], -logits[:1]).nnz == 0


@pytest.mark.parametrize("k", [1, 3, 40])
def test_csr_scores_equal_a_loop_over_dictionaries(tmp_path: Path, k: int):
    rng = np.random.default_rng(0)
    passages = [{int(t): int(rng.integers(1, 400)) for t in rng.choice(30, 4, replace=False)} for _ in range(40)]
    passages[20] = passages[3]  # equal scores fall by rank
    queries = [{int(t): int(rng.integers(1, 400)) for t in rng.choice(30, 2, replace=False)} for _ in range(5)] + [{}]
    ranks = rng.permutation(40)
    as_csr = lambda rows: csr_matrix([[row.get(t, 0) for t in range(30)] for row in rows], dtype=np.uint16)  # noqa: E731
    places = [tmp_path / f"{n}.npz" for n in range(3)]
    for place, part in zip(places, (passages[:15], passages[15:16], passages[16:]), strict=True):
        save_impacts(place, as_csr(part))
    scores, rows = search_impacts(as_csr(queries), places, k, lambda: ranks)
    for query, got, at in zip(queries, scores, rows, strict=True):
        by_hand = {row: sum(w * own.get(t, 0) for t, w in query.items()) for row, own in enumerate(passages)}
        best = sorted((row for row, s in by_hand.items() if s), key=lambda row: (-by_hand[row], ranks[row]))[:k]
        assert at.tolist() == best + [-1] * (k - len(best))
        assert got.tolist() == [by_hand[row] for row in best] + [0] * (k - len(best))
    places[1].write_bytes(places[1].read_bytes()[:-30])
    with pytest.raises(UserError, match="1.npz: no whole file of sparse vectors"):
        load_impacts(places[1])


@pytest.mark.parametrize(("parts", "fuses"), [(["dense"], False), (["sparse"], False), (["dense", "sparse"], True)])
def test_parts_that_are_fused_make_no_reward_of_a_passage_alone(model: str, toy: Collection, parts: list[str], fuses: bool):
    reps = PromptReps(model, **PROMPTS, parts=parts)
    with fp32() as session:
        few, more = (reps.opened(session).score(toy, {"q1": [f"d{n}" for n in range(1, most)]})["q1"] for most in (4, 7))
    alike = {d: pytest.approx(score, abs=1e-6) for d, score in few} == {d: s for d, s in more if d in dict(few)}  # fp32
    assert reps.fuses is fuses is not alike
    task = PassageTask("keywords")
    cases = task.cases(toy, {"q1": ["d1", "d2"]})
    with pytest.raises(UserError, match="what it makes of a passage hangs on all others") if fuses else nullcontext():
        PoolReward(reps).check(task, toy, cases)


def test_parts_are_fused_by_min_and_max(model: str, toy: Collection):
    ids = list(toy.queries)
    with fp32() as session:
        parts = [opened(model, session, parts=[part]).rank(toy, ids, 6) for part in ("dense", "sparse")]
        both = opened(model, session, dense_weight=0.5).rank(toy, ids, 4)
        pools = {q: ["d6", "d1", "d3"] for q in ids}
        scored = [opened(model, session, parts=[part]).score(toy, pools) for part in ("dense", "sparse")]
        pooled = opened(model, session).score(toy, pools)
        facts = session.take_facts()
    assert both == fuse(parts, "weighted", [0.5, 0.5], depth=4) and all(len(hits) == 4 for hits in both.values())
    assert pooled == fuse(scored, "weighted", [0.5, 0.5])
    for run, of_pool in zip(parts, scored, strict=True):
        for q in ids:
            assert dict(of_pool[q]) == pytest.approx({d: dict(run[q]).get(d, 0.0) for d in pools[q]}, abs=1e-4)
    assert facts["bytes_per_passage"] == 64 and facts["sparse bytes_per_passage"] > 0


def test_a_broken_off_encoding_goes_on(
    model: str, toy: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(promptreps_search, "SHARD", 2)

    def kept() -> Session:
        return Session(lambda: ExactSearch(precision="fp32", embeddings=str(tmp_path / "kept")))

    with kept() as session:
        before = opened(model, session).rank(toy, list(toy.queries), 6)
    (second,) = (tmp_path / "kept").rglob("shard-00001.npy")
    second.unlink()
    with caplog.at_level(logging.INFO), kept() as session:
        assert opened(model, session).rank(toy, list(toy.queries), 6) == before
    assert "2 of 3 shards are there" in caplog.text and "Encoded 2 passages" in caplog.text
    with kept() as session, pytest.raises(UserError, match=r"another model or corpus \(lengths differ\)"):
        opened(model, session, passage_length=9).rank(toy, list(toy.queries), 6)


def test_how_many_texts_are_cut_is_said(model: str, toy: Collection, caplog: pytest.LogCaptureFixture):
    most = sorted(len(query.text.encode()) for query in toy.queries.values())[1]  # a token a byte
    longer = sum(len(query.text.encode()) > most for query in toy.queries.values())
    with fp32() as session:
        opened(model, session, query_length=most).rank(toy, list(toy.queries), 6)
    said = [line for line in caplog.messages if "are cut" in line]
    assert [line.partition(": ")[2].partition(";")[0] for line in said] == [f"{longer} of 3 texts are cut at {most} tokens"]


def test_a_key_changes_with_what_scores_depend_on(model: str, toy: Collection):
    keys = {
        PromptReps(model, **{**PROMPTS, **o}).key(toy) for o in ({}, {"parts": ["dense"]}, {"system": "T"}, {"expansion": 1})
    }
    assert len(keys) == 4 and PromptReps(model, **PROMPTS).lengths == {
        "promptreps.query_length": 512,
        "promptreps.passage_length": 512,
    }


def test_faults_are_told_in_a_line(model: str, tmp_path: Path):
    for options, told in (
        ({"parts": ["lexical"]}, "give one or both of dense, sparse"),
        ({"parts": []}, "give one or both"),
        ({"dense_weight": 2}, "from 0 to 1"),
        ({"most_tokens": 0}, "retriever.most_tokens=0"),
        ({"expansion": -1}, "retriever.expansion=-1: a whole number from 0 on is needed"),
        ({"expansion": 0.5}, "retriever.expansion=0.5"),
        ({"query_prompt": "no place"}, "needs {text} once"),
    ):
        with pytest.raises(UserError, match=told):
            PromptReps(model, **{**PROMPTS, **options})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="it has no chat template; choose an instruction-tuned model"):
        PromptReps(tiny_bert(tmp_path / "bert"), **PROMPTS)
    headless = tiny_llama(tmp_path / "llama")
    tokenizer = AutoTokenizer.from_pretrained(headless)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(headless)
    with pytest.raises(UserError, match="its files have no lm_head.weight; choose a decoder with the head that writes"):
        PromptReps(headless, **PROMPTS)._reps.dim("fp32")


def test_it_is_not_trained(fails: Callable[..., str]):
    assert "PromptReps has no weights to train" in fails("train", "retriever=promptreps", "logger=none")


def test_a_real_model_ranks(toy: Collection):
    ranker = instantiate(composed("evaluate", "retriever=promptreps").retriever, _convert_="all")
    assert ranker.name.startswith(f"promptreps({Path(SMOLLM2).name}@") and locate(SMOLLM2)
    run = ranker.rank(toy, list(toy.queries), 3)
    assert [run[q][0][0] for q in ("q1", "q2", "q3")] == ["d1", "d2", "d3"]
