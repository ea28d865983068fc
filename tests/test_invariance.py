"""Questions in other wordings: the rules, what an LLM writes, the term of the loss, and the spread of scores."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from scripted import Scripted

from uar.collections import Collection, Query, open_collection
from uar.errors import UserError
from uar.evaluate import evaluate
from uar.evaluation.robustness import Robustness, spread_of
from uar.expansion.perturbations import RULES, Draws, check_kinds, perturbed
from uar.expansion.query_texts import with_texts
from uar.expansion.variants import RuleVariants, Variants
from uar.labels import Example, Stage
from uar.launch.entry import composed
from uar.llm.record import Generate, Outcome, Reply, Request
from uar.losses import contrastive
from uar.losses.invariance import invariance
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.training.batches import BatchStream
from uar.training.further_terms import FurtherTerms
from uar.training.further_texts import further_texts, variants_of
from uar.training.module import RetrieverModule

QUESTION = "what does the heart pump through the human body"
EVERY = ["typos", "spacing", "word_order", "keywords", "paraphrase"]


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def test_the_term_is_the_divergence_of_each_wording_from_the_mean() -> None:
    chances = torch.tensor([[[0.5, 0.5, 1.0], [0.2, 0.8, 1.0]], [[0.25, 0.75, 9.0], [0.2, 0.8, 3.0]]])
    valid = torch.tensor([[True, True, False]] * 2)
    mean = (0.375, 0.625)
    first = sum(m * math.log(m / p) for k in (0, 1) for m, p in zip(mean, chances[k, 0].tolist(), strict=False)) / 2
    found = invariance(chances.log(), valid, torch.tensor([3.0, 1.0]))
    assert found.item() == pytest.approx(first * 3 / 4, rel=1e-5)
    assert invariance(chances.log(), valid, torch.tensor([0.0, 1.0])).item() == pytest.approx(0, abs=1e-7)
    assert invariance(chances.log(), valid, torch.zeros(2)).item() == 0


def test_equal_wordings_have_no_loss_and_no_gradient() -> None:
    scores = torch.tensor([[3.0, -1.0, 0.5]]).repeat(4, 1, 1).requires_grad_()
    loss = invariance(scores, torch.ones(1, 3, dtype=torch.bool), torch.ones(1))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and scores.grad is not None
    assert scores.grad.abs().max().item() < 1e-7


def test_the_gradient_draws_each_wording_to_the_mean_and_leaves_the_mean() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 3] = False
    weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
    invariance(scores, valid, weights).backward()
    chances = scores.detach().masked_fill(~valid, -torch.inf).softmax(dim=-1)
    right = (chances - chances.mean(dim=0)) * (weights / weights.sum())[:, None] / 3
    torch.testing.assert_close(scores.grad, right)


@pytest.mark.parametrize("kind", EVERY)
def test_a_rule_changes_a_question_and_is_the_same_on_every_machine(kind: str) -> None:
    draws = [Draws(seed, kind, "q1") for seed in range(20)]
    texts = [RULES[kind](QUESTION, one) for one in draws]
    assert QUESTION not in texts and texts == [RULES[kind](QUESTION, one) for one in draws]
    assert len(set(texts)) > 3 or kind == "keywords"
    words, first = QUESTION.split(), texts[0].split()
    by_hand = {
        "typos": len(first) == len(words) and sum(a != b for a, b in zip(first, words, strict=False)) == 1,
        "spacing": len(first) == len(words) - 1 and "".join(first) == "".join(words),
        "word_order": sorted(first) == sorted(words),
        "keywords": texts[0] == "heart pump through human body",
        "paraphrase": QUESTION in texts[0],
    }
    assert by_hand[kind]


def test_a_typo_leaves_the_first_letter_and_is_one_step_away() -> None:
    found = {RULES["typos"]("heart", Draws(seed, "typos", "q")) for seed in range(200)}
    swapped, left_out = {"haert", "herat", "heatr"}, {"hart", "hert", "heat"}
    assert found <= swapped | left_out | {"heeart", "heaart", "hearrt"} and len(found) == 9
    for short in ("do it", "1234 5678", ""):
        assert RULES["typos"](short, Draws(0, "typos", "q")) == short
    assert RULES["word_order"]("a b", Draws(0, "word_order", "q")) in ("b a",)
    assert RULES["keywords"]("what is this?", Draws(0, "keywords", "q")) == "what is this"


def test_rules_of_english_refuse_another_language(toy: Collection) -> None:
    german = replace(toy, corpus=toy.corpus.in_language("de"))
    with pytest.raises(UserError, match="keywords: its rule has English words.*allowed: typos, spacing, word_order"):
        perturbed(german, ["q1"], "keywords", 0)
    assert perturbed(german, ["q1"], "word_order", 0).keys() == {"q1"}
    with pytest.raises(UserError, match="variants.kinds names 'typo'; allowed: typos, spacing"):
        RuleVariants(["typo"], 0)
    with pytest.raises(UserError, match="perturb names 'typos' twice"):
        check_kinds(["typos", "typos"], "perturb")


def test_variants_by_rule_take_the_kinds_in_turn(toy: Collection, tmp_path: Path) -> None:
    variants: Variants = RuleVariants(["typos", "word_order"], 5)
    found = variants.texts(toy, ["q3", "q1"], 3, tmp_path)
    each = [perturbed(toy, ["q3", "q1"], kind, seed) for kind, seed in (("typos", 5), ("word_order", 5), ("typos", 6))]
    assert found == {q: [texts[q] for texts in each] for q in ("q3", "q1")}


def answer(request: Request) -> Reply | str:
    assert isinstance(request, Generate)
    if "danube" in request.messages[-1][1]:
        return Reply("the server is down", Outcome.ERROR)
    return f"in words of {request.sample}"


class Writer(Scripted):
    """As a config names it."""

    def __init__(self, model: str) -> None:
        super().__init__(answer)


def test_variants_of_an_llm_have_a_seed_each(toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = composed("train", "variants=rewrite", f"store={tmp_path / 'store'}", "variants.max_failure_rate=1")
    cfg.variants.llm = {"_target_": f"{__name__}.Writer", "model": "writer"}
    (tmp_path / "run").mkdir()
    for kept in (0, 2):
        found = instantiate(cfg.variants, _convert_="all").texts(toy, ["q1", "q3"], 2, tmp_path / "run")
        assert found == {"q1": ["in words of 0", "in words of 1"], "q3": [toy.queries["q3"].text] * 2}
        ledger = json.loads((tmp_path / "run" / "variants_ledger.json").read_text())
        assert ledger["calls_answered_by_store"] == kept
    assert "calls failed: 2 of 4 variants are the question itself" in caplog.text
    cfg.variants.writer.temperature = 0
    with pytest.raises(Exception, match="variants.writer.temperature=0 would write the same text"):
        instantiate(cfg.variants, _convert_="all")


class Written(dict[str, list[str]]):
    """Variants that a test wrote."""

    def texts(self, collection: Collection, query_ids: Any, number: int, folder: Path | None) -> dict[str, list[str]]:
        return {q: self[q][:number] for q in query_ids}


@pytest.fixture
def encoder(tiny: list[str]) -> Iterator[BiEncoder]:
    torch.manual_seed(0)
    yield BiEncoder(tiny[0].partition("=")[2], query_length=32, passage_length=32, dropout=0.0)


def step(encoder: BiEncoder, toy: Collection, folder: Path, variants: dict[str, list[str]] | None) -> dict[str, float]:
    """What a training step logs, by name, and its loss."""
    examples = [Example(f"q{i}", (f"d{i}",), ("d4", "d5"), "human") for i in (1, 2, 3)]
    stage = Stage("human", examples, 1, "all")
    texts = variants_of(toy, [stage], Written(variants), 2, folder) if variants else {}
    further = further_texts(toy, texts, {}, encoder) if texts else None
    tokens = encoder.query_tokens(toy), toy.query_rows, encoder.passage_tokens(toy), toy.corpus
    module = RetrieverModule(encoder, contrastive, partial(torch.optim.SGD, lr=1.0), 0.0, "human", terms=FurtherTerms(0.5))
    logged: dict[str, float] = {}
    module.log = lambda name, value, **__: logged.update({name: float(value.detach())})  # type: ignore[method-assign,assignment]
    (batch,) = BatchStream(stage, *tokens, 3, 3, 0, further=further)
    return {**logged, "step": module.training_step(batch, 0).item(), **logged}


def test_a_step_adds_the_term_over_the_passages_of_the_batch(encoder: BiEncoder, toy: Collection, tmp_path: Path) -> None:
    own = {q: [query.text] * 2 for q, query in toy.queries.items()}
    plain, same = step(encoder, toy, tmp_path, None), step(encoder, toy, tmp_path, own)
    assert same["step"] == pytest.approx(plain["step"], abs=1e-5) and "human/invariance" not in plain
    assert same["human/invariance"] == pytest.approx(0, abs=1e-6)
    others = {"q1": ["pumps", "blood what"], "q2": ["honey", "bees"], "q3": ["sea", "black sea"]}
    found = step(encoder, toy, tmp_path, others)
    texts = {f"{q} {n}": text for q, own in others.items() for n, text in enumerate([toy.queries[q].text, *own])}
    asked = replace(toy, queries={name: Query(name, text) for name, text in texts.items()})
    tokens, passages = encoder.query_tokens(asked), encoder.passage_tokens(toy)
    shown = [passages[row] for row in range(5)]
    with torch.no_grad():
        vectors = encoder([tokens[row] for row in range(9)], role="query")
        scores = encoder.scale * encoder.similarity(vectors, encoder(shown, role="passage"))
    chances = scores.softmax(dim=1).view(3, 3, 5).double().numpy()  # (questions, wordings, passages)
    mean = chances.mean(axis=1, keepdims=True)
    right = (mean * np.log(mean / chances)).sum(axis=2).mean()
    assert found["human/invariance"] == pytest.approx(0.5 * right, rel=1e-3)
    assert found["human/invariance"] > 1e-4
    assert found["step"] == pytest.approx(plain["step"] + found["human/invariance"], rel=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "variants.jsonl").read_text().splitlines()]
    assert rows == [{"query_id": q, "variants": own} for q, own in others.items()]


def test_the_spread_is_the_mean_distance_of_a_questions_best_and_worst_wording() -> None:
    assert spread_of([{"a": 1.0, "b": 0.5}, {"a": 0.25, "b": 0.5}, {"a": 0.5, "b": 1.0}]) == (0.75 + 0.5) / 2


def test_an_evaluation_tells_the_spread_over_wordings(folder: Path, tmp_path: Path, toy: Collection) -> None:
    given = ["retriever=bm25", f"collections=[local:{folder}:test]", "logger=none", f"store={tmp_path}", "retrieval_depth=6"]
    more = ["measures=[RR@10]", "perturb=[spacing,word_order]", "perturb_seed=3"]
    assert evaluate(composed("evaluate", *given, *more), tmp_path / "run") == 1
    told = json.loads((tmp_path / "run" / "robustness.json").read_text())["toy.test"]
    texts = perturbed(toy, list(toy.queries), "spacing", 3)
    assert told["means"]["word_order"] == told["means"]["as they are"] == {"RR@10": 1.0}
    glued = [q for q, text in texts.items() if not found_by_bm25(toy, q, text)]
    assert told["means"]["spacing"]["RR@10"] == pytest.approx(1 - len(glued) / 3)
    assert told["spread"]["RR@10"] == pytest.approx(len(glued) / 3) and told["seed"] == 3
    evaluate(composed("evaluate", *given, "measures=[RR@10]"), tmp_path / "run")
    assert not (tmp_path / "run" / "robustness.json").exists()


def test_questions_that_no_rule_changes_are_counted_whatever_their_spaces(
    toy: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = {"q1": "who  is he", "q2": " do it", "q3": "heart  pump"}
    scores = [(q, "RR@1", 1.0) for q in texts]
    with caplog.at_level("INFO"):
        Robustness(["typos"], 0).report(tmp_path, with_texts(toy, texts), ["RR@1"], scores, lambda asked, ids: {})
    assert f"{toy.slug}: perturb=typos leaves 2 of 3 questions as they are" in caplog.text


def found_by_bm25(collection: Collection, query_id: str, text: str) -> bool:
    return bool(BM25Ranker().rank(with_texts(collection, {query_id: text}), [query_id], 6)[query_id])


def test_a_run_file_cannot_be_searched_for_other_wordings(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.trec").write_text("q1 Q0 d1 1 1.0 a\n")
    given = [f"run={tmp_path / 'a.trec'}", f"collections=[local:{folder}:test]", "logger=none", "measures=[RR@1]"]
    with pytest.raises(UserError, match="perturb: a run file has no passages for other questions"):
        evaluate(composed("evaluate", *given, "perturb=typos"), tmp_path / "run")
