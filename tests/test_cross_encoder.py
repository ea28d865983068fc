"""Cross-encoders: pairs as transformers makes them, training on a query's own passages, the export, and re-ranking."""

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, ok
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from sentence_transformers import CrossEncoder as Theirs
from tiny_models import tiny_bert, tiny_gpt2, tiny_llama
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluate import _model, evaluate
from uar.launch.entry import composed
from uar.losses import Loss, contrastive, kl
from uar.reranking import ByRanker, Reranked
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.retrievers.cross_encoder.pair_form import PairForm
from uar.retrievers.run_file import RunFile
from uar.retrievers.session import Session
from uar.retrievers.trainable import Texts
from uar.retrievers.vector_index import ExactSearch
from uar.storage.runs import Run, read_run, write_run
from uar.training.batches import Batch
from uar.training.exported import of_a_few, restore
from uar.training.module import RetrieverModule

PAIRS = [
    ("what pumps blood", "The heart pumps blood through the body."),
    ("what do bees make of the nectar of flowers in spring and summer", "Bees make honey."),
    ("honey", "Bees make honey from the nectar of flowers, and store it in combs of wax for the winter."),
    ("a " * 30, "b " * 40),
]


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


@pytest.fixture
def model(tmp_path: Path) -> CrossEncoder:
    return CrossEncoder(tiny_bert(tmp_path / "bert"), length=24, dropout=0.0, others=0)


def ids(run: Run) -> dict[str, list[str]]:
    return {q: [d for d, _ in hits] for q, hits in run.items()}


def bare(model: CrossEncoder, text: str) -> np.ndarray:
    return np.array(model.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)


def tokens(model: CrossEncoder) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(bare(model, query), bare(model, passage)) for query, passage in PAIRS]


@pytest.mark.parametrize("make", [tiny_bert, tiny_gpt2, partial(tiny_llama, pad_token="<|endoftext|>")])
@pytest.mark.parametrize("length", [9, 16, 23, 24, 90])
def test_pairs_are_cut_and_joined_as_transformers_does(tmp_path: Path, make: Callable[..., str], length: int):
    tokenizer = AutoTokenizer.from_pretrained(make(tmp_path / "model"))
    form = PairForm.of(tokenizer, length)
    for query, passage in [*PAIRS, *(pair[::-1] for pair in PAIRS)]:
        expected = tokenizer(query, passage, truncation="longest_first", max_length=length)
        parts = [np.array(tokenizer(t, add_special_tokens=False)["input_ids"], dtype=np.int64) for t in (query, passage)]
        ids, second = form.joined(*parts)
        assert ids.tolist() == expected["input_ids"]
        assert int(np.add(*form.lengths(*(np.array(len(p)) for p in parts)))) + form.special == len(ids)
        if "token_type_ids" in expected:
            assert [int(place >= second) for place in range(len(ids))] == expected["token_type_ids"]


def test_an_export_loads_in_sentence_transformers_with_the_same_scores(tmp_path: Path, model: CrossEncoder):
    model.eval().save(tmp_path / "out")
    ours = model(tokens(model)).detach().numpy()
    theirs = Theirs(str(tmp_path / "out"), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)  # fp32
    assert np.ptp(ours) > 0.05
    again = CrossEncoder(str(tmp_path / "out"), new_head=False).eval()
    assert again.length == 24
    np.testing.assert_allclose(again(tokens(again)).detach().numpy(), ours, atol=1e-6, rtol=0)


def test_an_export_reads_pairs_as_long_as_it_was_trained_on(tmp_path: Path):
    place = tiny_bert(tmp_path / "bert", max_position_embeddings=1024)
    assert CrossEncoder(place).length == 512
    CrossEncoder(place, length=800).save(tmp_path / "out")
    assert CrossEncoder(str(tmp_path / "out")).length == 800
    assert CrossEncoder(str(tmp_path / "out"), length=32).length == 32


def test_scores_by_a_new_head_differ_before_training(tmp_path: Path):
    """A pooler whose weights are small, as of a model that was trained without it, is drawn anew with the rest of the head."""
    place = tiny_bert(tmp_path / "bert")
    encoder = AutoModel.from_pretrained(place)
    with torch.no_grad():
        encoder.pooler.dense.weight.fill_(1e-4)
    encoder.save_pretrained(place)
    model = CrossEncoder(place, dropout=0.0).eval()
    for head in (model.scorer.bert.pooler.dense, model.scorer.classifier):
        assert head.weight.std().item() == pytest.approx(head.in_features**-0.5, rel=0.4)  # of at least 32 numbers
    assert model(tokens(model)).std() > 0.05


def test_a_new_head_is_the_same_whenever_it_is_drawn(tmp_path: Path):
    place = tiny_bert(tmp_path / "bert")
    first, second = (CrossEncoder(place).weights_key() for _ in range(2))
    assert first == second != CrossEncoder(place, length=20).weights_key()


@pytest.mark.parametrize("make", [tiny_bert, partial(tiny_llama, pad_token="<|endoftext|>")])
def test_scores_do_not_depend_on_chunks_nor_on_gradcache(tmp_path: Path, make: Callable[..., str]):
    made = [CrossEncoder(make(tmp_path / "m"), length=60, dropout=0.0, token_budget=budget) for budget in (1, 4096)]
    scores = [model.train()(tokens(model), cached=cached) for model, cached in zip(made, (True, False), strict=True)]
    torch.testing.assert_close(*(score.detach() for score in scores), rtol=1e-4, atol=1e-5)  # sums of fp32 in another order
    for score in scores:
        score.square().sum().backward()
    for (name, one), (_, other) in zip(*(model.named_parameters() for model in made), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_a_batch_is_scored_by_own_passages_alone_unless_all_are_wanted(model: CrossEncoder):
    queries, passages = zip(*tokens(model)[:3], strict=True)
    own = torch.tensor([[True, False, False], [False, True, True], [True, False, True]])
    texts = Texts(queries, passages, torch.tensor([5, 6, 7]), own)
    model.eval()
    found = model.batch_scores(texts, lambda *_: pytest.fail("passages of other processes are asked for"))
    assert found.scored is own and found.rows.tolist() == [5, 6, 7] and not found.scores[~own].any()
    model._in_batch = True
    everything = model.batch_scores(texts, lambda *_: pytest.fail("asked for"))
    assert everything.scored is not None and everything.scored.all()
    torch.testing.assert_close(everything.scores[own], found.scores[own])


@pytest.mark.parametrize("others, expected", [
    (0, ["x...", ".xx.", "...x"]),
    (1, ["xx..", ".xxx", "x..x"]),
    (2, ["xx.x", "xxxx", "xx.x"]),
    (9, ["xx.x", "xxxx", "xx.x"]),
])  # fmt: skip
def test_a_query_is_scored_against_the_first_passages_of_the_next_queries_too(
    model: CrossEncoder, others: int, expected: list[str]
):
    queries = [query for query, _ in tokens(model)[:3]]
    passages = [passage for _, passage in tokens(model)]
    own = torch.tensor([[True, False, False, False], [False, True, True, False], [False, False, False, True]])
    model.eval()
    model._others = others
    for teach in (True, False):
        texts = Texts(queries, passages, torch.tensor([5, 6, 7, 8]), own, others_teach=teach)
        scored = model.batch_scores(texts, lambda *_: pytest.fail("passages of other processes are asked for")).scored
        assert scored is not None
        assert ["".join(".x"[n] for n in row) for row in scored.int().tolist()] == (
            expected if teach else ["x...", ".xx.", "...x"]
        )


@pytest.mark.parametrize("loss, taught", [(contrastive, True), (kl, False)])
def test_a_loss_of_utilities_is_given_no_pairs_of_other_queries(model: CrossEncoder, loss: Loss, taught: bool):
    queries, passages = zip(*tokens(model)[:2], strict=True)
    rows, own, none = torch.tensor([5, 6]), torch.tensor([[5], [6]]), torch.empty(2, 0)
    batch = Batch(["a", "b"], list(queries), list(passages), rows, own, own, own, none.long(), none, torch.ones(2))
    model._others = 2
    module, seen = RetrieverModule(model, loss, partial(torch.optim.SGD, lr=0.1), 0.0, "llm"), []
    scoring = model.batch_scores
    model.batch_scores = lambda *given, **options: seen.append(scoring(*given, **options)) or seen[-1]  # type: ignore[method-assign]
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.training_step(batch, 0)
    assert seen[0].scored.tolist() == [[True, taught], [taught, True]]


def test_pairs_that_were_not_scored_say_nothing_to_a_loss(model: CrossEncoder):
    queries, passages = zip(*tokens(model)[:3], strict=True)
    rows, none = torch.tensor([5, 6, 7]), torch.empty(2, 0)
    batch = Batch(
        ["a", "b"], list(queries[:2]), list(passages), rows, torch.tensor([[5, 6], [6, 7]]), torch.tensor([[5, 7], [7, -2]]),
        torch.tensor([[5, 7], [7, -2]]), none.long(), none, torch.ones(2),
    )  # fmt: skip
    module = RetrieverModule(model.eval(), contrastive, partial(torch.optim.SGD, lr=0.1), 0.0, "llm")
    texts = Texts(batch.queries, batch.passages, rows, torch.tensor([[True, True, False], [False, True, True]]))
    found = model.batch_scores(texts, lambda *_: pytest.fail("asked for"))
    loss, weights = module._loss_of(batch, found)
    score = found.scores
    expected = torch.nn.functional.softplus(torch.stack([score[0, 1] - score[0, 0], score[1, 1] - score[1, 2]])).mean()
    torch.testing.assert_close(loss, expected)
    assert weights.tolist() == [1, 1]


def test_it_ranks_the_best_of_its_first_stage_and_keeps_the_rest(model: CrossEncoder, toy: Collection):
    model._depth = 2
    bm25 = BM25Ranker().rank(toy, ["q1", "q2"], 6)
    with Session(lambda: ExactSearch(precision="fp32")) as session:
        opened = model.opened(session)
        ranked = opened.rank(toy, ["q1", "q2"], 6)
        scored = opened.score(toy, {q: [d for d, _ in hits[:2]] for q, hits in bm25.items()})
    for query_id, hits in bm25.items():
        assert list(ranked[query_id][:2]) == scored[query_id]
        assert [d for d, _ in ranked[query_id][2:]] == [d for d, _ in hits[2:]]
        assert [s for _, s in ranked[query_id]] == sorted((s for _, s in ranked[query_id]), reverse=True)
    both: Run = Reranked(BM25Ranker(), ByRanker(model, 2)).rank(toy, ["q1", "q2"], 6)
    assert ids(both) == ids(ranked)
    assert opened.name.startswith("bm25") and "the best 2 re-ranked by cross-encoder" in opened.name
    assert opened.score(toy, {"q1": []}) == {"q1": []}


def test_what_its_runs_depend_on(model: CrossEncoder, toy: Collection):
    key = model.key(toy)
    model._depth = 7
    assert key is not None and model.key(toy) != key and model.lengths == {"length": 24}
    assert model.searches and model.reach(toy, 5) == 5


@pytest.mark.parametrize(("deep", "reach"), [(2, 2), (6, 4)])
def test_a_run_file_that_it_ranks_again_is_cut_where_it_is_asked_to(
    tmp_path: Path, model: CrossEncoder, toy: Collection, deep: int, reach: int
):
    passages = list(toy.corpus.ids())[:deep]
    write_run(tmp_path / "deep.trec", {q: [(d, -float(n)) for n, d in enumerate(passages)] for q in toy.queries}, "deep")
    model._found_by = (RunFile(tmp_path / "deep.trec"),)
    with Session(ExactSearch) as session:
        assert {len(hits) for hits in model.opened(session).rank(toy, list(toy.queries), 4).values()} == {reach}
        assert model.reach(toy, 4) == model.opened(session).reach(toy, 4) == reach


def test_scores_that_are_no_numbers_are_refused(model: CrossEncoder, toy: Collection):
    with torch.no_grad():
        model.scorer.classifier.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="2 of 2 scores are no finite numbers .*; train with a smaller"):
        model.score(toy, {"q1": ["d1", "d2"]})


def test_models_that_are_no_cross_encoders_are_refused(tmp_path: Path):
    place = tiny_bert(tmp_path / "bert")
    with pytest.raises(UserError, match="it has no scoring head, so it is no cross-encoder; train one with python train.py"):
        CrossEncoder(place, new_head=False)
    config = AutoConfig.from_pretrained(place, num_labels=3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "nli")
    AutoTokenizer.from_pretrained(place).save_pretrained(tmp_path / "nli")
    with pytest.raises(UserError, match="its head gives 3 labels, and a ranker needs one score"):
        CrossEncoder(str(tmp_path / "nli"))
    for options, message in (
        ({"depth": 0}, "retriever.depth=0: at least 1"),
        ({"others": -1}, "retriever.others=-1: a whole number from 0"),
        ({"length": 4}, "retriever.length=4: a pair has 8 to 512 tokens"),
        ({"length": 1000}, "retriever.length=1000: a pair has 8 to 512"),
        ({"layers": 9}, "retriever.layers=9: the model has 2 layers"),
    ):
        with pytest.raises(UserError, match=message):
            CrossEncoder(place, **options)


def test_it_is_trained_exported_and_re_ranks(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, tiny: list[str]
):
    own = ["retriever=cross_encoder", *tiny, "retriever.depth=3", "retriever.length=32"]
    options = [*SMALL, *own, "rag=off", "logger=none", "label_source=mixed", "human_frac=0.2", "trainer.max_steps=2"]
    said = ok(command("train", *options, "trainer.precision=fp32", "hydra.run.dir=run"))
    assert "has no scoring head: a new one is drawn" in said and "rank at random, so its order before training" in said
    assert set(json.loads((tmp_path / "run" / "baselines.json").read_text())["retrieval"]) == {"bm25"}
    trained = read_run(tmp_path / "run" / "runs" / "mini.test.trec")
    model = str(tmp_path / "run" / "model")
    assert "CrossEncoder(" in (tmp_path / "run" / "model" / "README.md").read_text()

    fresh = instantiate(composed("train", *own).retriever, _convert_="all")
    restore(composed("train", *own), Path(model), fresh)  # as resume=true does
    vectors = np.load(tmp_path / "run" / "checkpoints" / "vectors.npy")
    mini = open_collection("mini:train")
    assert vectors.shape == (8, 8)
    np.testing.assert_allclose(of_a_few(fresh, mini, "fp32"), vectors, atol=1e-5, rtol=0)

    common = ["collections=[mini:test]", "logger=none", "search.precision=fp32"]
    by_rerank = ["retriever=bm25", "rerank=cross_encoder", "rerank.depth=3", f"rerank.retriever.model={model}"]
    alone = ["retriever=cross_encoder", f"retriever.model={model}", "retriever.depth=3"]
    for name, how in {"rerank": by_rerank, "alone": alone}.items():
        evaluate(composed("evaluate", *common, *how), tmp_path / name)
        assert ids(read_run(tmp_path / name / "runs" / "mini.test.trec")) == ids(trained)


def test_as_a_re_ranker_it_has_no_options_of_a_search_and_of_training():
    for option in ("depth=3", "first.k1=2", "others=0"):
        with pytest.raises(ConfigCompositionException, match=f"Could not override 'rerank.retriever.{option[:5]}"):
            composed("evaluate", "retriever=bm25", "rerank=cross_encoder", f"rerank.retriever.{option}")


def test_options_of_a_bi_encoder_are_refused_for_a_cross_encoder(model: CrossEncoder, tmp_path: Path):
    model.save(tmp_path / "out")
    given = [f"model={tmp_path / 'out'}", "collections=[mini:test]", "logger=none"]
    opened = _model(composed("evaluate", *given), ["model"])
    assert isinstance(opened, CrossEncoder) and opened.length == 24
    cfg = composed("evaluate", *given, "pooling=cls")
    with pytest.raises(UserError, match="pooling=cls: .*out is a cross-encoder, which has no pooling; leave it null"):
        evaluate(cfg, tmp_path / "e")
