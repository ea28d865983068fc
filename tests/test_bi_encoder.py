"""How texts become vectors, and what learns."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_models import EOS, SIZE, puts_around_texts, sentence_transformers_files, tiny_bert, tiny_gpt2, tiny_llama, tiny_model
from torch import nn
from transformers import AutoConfig, AutoModel, T5Config, XmodConfig

from uar.collections import open_collection
from uar.errors import UserError
from uar.retrievers import token_batches
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.colbert.colbert_encoder import ColBERT
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.retrievers.session import Session
from uar.retrievers.splade.splade_encoder import Splade
from uar.retrievers.transformer.loading import OFFSET, check_length
from uar.retrievers.vector_index import ExactSearch

TEXTS = ["Salt", "Glass is made of sand.", "The Moon raises the tides of the oceans.", "Bees make honey.", "Iron rusts."]


def ids(retriever: BiEncoder, texts: list[str], length: int = 64) -> list[np.ndarray]:
    return [np.array(retriever.tokenizer(t, truncation=True, max_length=length)["input_ids"]) for t in texts]


def gradients(retriever: BiEncoder, cached: bool, autocast: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Vectors of one forward pass with dropout, and the gradients of a loss that joins all of them."""
    retriever.zero_grad()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        vectors = retriever(ids(retriever, TEXTS), cached=cached)
    (vectors @ vectors.T).logsumexp(1).sum().backward()
    return vectors.detach(), {n: p.grad.clone() for n, p in retriever.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_cached_gradients_are_those_of_a_plain_pass(tmp_path: Path, autocast: bool, checkpointing: bool):
    model = tiny_bert(tmp_path / "bert")
    retriever = BiEncoder(model, dropout=0.1, token_budget=24, gradient_checkpointing=checkpointing).train()
    plain, wanted = gradients(retriever, False, autocast)
    vectors, found = gradients(retriever, True, autocast)
    torch.testing.assert_close(vectors, plain)
    assert found.keys() == wanted.keys() and len(found) > 30
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-5, msg=name)


def test_caching_holds_the_activations_of_no_chunk(tmp_path: Path):
    retriever = BiEncoder(tiny_bert(tmp_path / "bert"), token_budget=24).train()
    held = {}
    for cached in (False, True):
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            retriever(ids(retriever, TEXTS), cached=cached)
        held[cached] = sum(sizes)
    assert held[True] < held[False] / 50
    with torch.no_grad():
        assert not retriever(ids(retriever, TEXTS), cached=True).requires_grad


def test_the_heap_is_released_between_cached_chunks_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    retriever = BiEncoder(tiny_bert(tmp_path / "bert"), token_budget=24).train()
    released: list[None] = []
    monkeypatch.setattr(token_batches, "release_heap", lambda: released.append(None))
    monkeypatch.setattr(token_batches, "RELEASE", 30)
    gradients(retriever, True, False)
    once = len(released)
    assert once >= 2
    gradients(retriever, False, False)
    assert len(released) == once


def test_tied_encoders_give_one_vector_and_untied_ones_learn_apart(tmp_path: Path):
    model = tiny_bert(tmp_path / "bert")
    tied, untied = BiEncoder(model).eval(), BiEncoder(model, tied=False).eval()
    texts = ids(tied, TEXTS)
    assert tied.tied and not untied.tied
    torch.testing.assert_close(tied(texts, role="query"), tied(texts))
    torch.testing.assert_close(untied(texts, role="query"), untied(texts))
    untied(texts, role="query").sum().backward()
    assert all(p.grad is None for p in untied.encoder.parameters())
    assert any(p.grad is not None for p in untied.query_encoder.parameters())
    with pytest.raises(ValueError, match="allowed: query, passage"):
        tied(texts, role="document")


def test_queries_go_through_their_own_encoder(tmp_path: Path, folder: Path):
    retriever = BiEncoder(tiny_bert(tmp_path / "bert"), tied=False, normalize=True).eval()
    with torch.no_grad():
        for weight in retriever.query_encoder.parameters():
            weight.mul_(1.5)
    collection = open_collection(f"local:{folder}:test")
    queries, passages = retriever.query_tokens(collection), retriever.passage_tokens(collection)
    with torch.no_grad():
        exact = retriever([queries[0]], role="query") @ retriever([passages[i] for i in range(len(passages))]).T
    expected = np.sort(exact[0].numpy())[::-1]
    pool = {"q1": [collection.corpus.id(i) for i in range(len(passages))]}
    with Session(lambda: ExactSearch(precision="fp32")) as session:
        opened = retriever.opened(session)
        runs = [opened.rank(collection, ["q1"], 6), opened.score(collection, pool)]
    for run in runs:
        np.testing.assert_allclose([score for _, score in run["q1"]], expected, atol=2e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e5])
def test_vectors_that_are_no_numbers_get_no_score(tmp_path: Path, folder: Path, value: float):
    """1e5 is too large for the fp16 in which passages are kept."""
    retriever = BiEncoder(tiny_bert(tmp_path), normalize=False)
    collection = open_collection(f"local:{folder}:train")
    last = [p for n, p in retriever.named_parameters() if n.endswith("output.LayerNorm.bias")][-1]
    with torch.no_grad():
        last.fill_(value)
    pools = {q: ["d1", "d2"] for q in collection.queries}
    for score in (lambda: retriever.score(collection, pools), lambda: retriever.rank(collection, ["q1"], 3)):
        with pytest.raises(UserError, match="vectors are nan or too large for float(16|32) .* get no score"):
            score()


def test_only_adapters_learn_and_they_change_the_vectors(tmp_path: Path):
    model = tiny_bert(tmp_path / "bert")
    retriever = BiEncoder(model, lora_rank=4, tied=False)
    learning = [n for n, p in retriever.named_parameters() if p.requires_grad]
    assert learning and all(".lora_" in name for name in learning) and not any("pooler" in name for name in learning)
    assert {n.split(".")[0] for n in learning} == {"encoder", "query_encoder"}
    texts = ids(retriever, TEXTS)
    torch.testing.assert_close(retriever.eval()(texts), BiEncoder(model).eval()(texts))  # B starts at zero
    retriever(texts, cached=True).square().sum().backward()
    assert all(p.grad is not None for n, p in retriever.encoder.named_parameters() if p.requires_grad)
    scaling = {m.scaling["default"] for m in retriever.encoder.modules() if hasattr(m, "lora_A")}
    assert scaling == {2.0}  # alpha is twice the rank
    chosen = BiEncoder(model, lora_rank=4, lora_alpha=4, lora_targets=["query", "value"])
    assert sum(".lora_A." in n for n, _ in chosen.named_parameters()) == 4


def test_a_learned_scale_is_a_parameter_and_stays_below_100(tmp_path: Path):
    model = tiny_bert(tmp_path / "bert")
    fixed, learned = BiEncoder(model, scale=30.0), BiEncoder(model, scale=30.0, learn_scale=True)
    assert fixed.scale == 30.0 and "log_scale" not in fixed.state_dict()
    scale = learned.scale
    assert isinstance(scale, torch.Tensor) and scale.item() == pytest.approx(30.0)
    scale.backward()
    assert learned.log_scale.grad.item() == pytest.approx(30.0)  # d exp(x) / dx
    with torch.no_grad():
        learned.log_scale.fill_(math.log(500.0))
    assert learned.scale.item() == pytest.approx(100.0) and learned.log_scale.item() == pytest.approx(math.log(100.0))


def test_compiling_keeps_the_names_of_the_weights_and_the_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = tiny_bert(tmp_path / "bert")
    seen: list[dict] = []
    real = nn.Module.compile

    def compiled(module: nn.Module, **options: object) -> None:
        seen.append(options)
        real(module, backend="eager", **options)  # without a C++ compiler

    monkeypatch.setattr(nn.Module, "compile", compiled)
    plain, other = BiEncoder(model).eval(), BiEncoder(model, compile=True).eval()
    assert seen == [{"dynamic": True}] and list(plain.state_dict()) == list(other.state_dict())
    torch.testing.assert_close(other(ids(other, TEXTS)), plain(ids(plain, TEXTS)))
    other.save(tmp_path / "saved")
    again = BiEncoder(str(tmp_path / "saved")).eval()
    torch.testing.assert_close(again(ids(again, TEXTS)), plain(ids(plain, TEXTS)))


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
@pytest.mark.parametrize("make", [tiny_bert, tiny_llama, tiny_gpt2])
def test_padding_changes_nothing(tmp_path: Path, make, pooling: str):
    retriever = BiEncoder(make(tmp_path / "model"), pooling=pooling).eval()
    texts = ids(retriever, TEXTS)
    with torch.inference_mode():
        alone = torch.cat([retriever([text]) for text in texts])
        torch.testing.assert_close(retriever(texts), alone, atol=1e-5, rtol=1e-5)
        empty = retriever([np.zeros(0, np.int64), texts[0]])
    assert empty.isfinite().all()
    assert (alone[0] - alone[1]).abs().max() > 1e-3


def test_a_decoder_pools_its_last_token_and_ends_texts_with_eos(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    model = tiny_llama(tmp_path / "llama")
    retriever = BiEncoder(model)
    eos = retriever.tokenizer.eos_token_id
    assert retriever.settings.pooling == "lasttoken" and retriever.tokenizer.pad_token == EOS
    assert sum("no pad token" in r.getMessage() for r in caplog.records) == 1
    whole, cut = ids(retriever, ["salt", "salt"], 64)[0], ids(retriever, ["a long text about salt"], 6)[0]
    assert whole[-1] == cut[-1] == eos and len(cut) == 6 and len(whole) == 5
    assert ids(BiEncoder(model, append_eos=False), ["salt"])[0][-1] != eos
    assert ids(BiEncoder(model, pooling="mean"), ["salt"])[0][-1] != eos
    assert ids(BiEncoder(model, pooling="mean", append_eos=True), ["salt"])[0][-1] == eos


@pytest.mark.parametrize("around", [([], []), (["!"], []), (["!", "~"], []), (["!"], ["~"])])
def test_eos_comes_after_what_the_tokenizer_puts_around_texts(tmp_path: Path, around: tuple[list[str], list[str]]):
    model = tiny_llama(tmp_path / "llama")
    puts_around_texts(model, *around)
    retriever = BiEncoder(model)
    eos = retriever.tokenizer.eos_token_id
    before, after = (retriever.tokenizer.convert_tokens_to_ids(tokens) for tokens in around)
    whole, cut = ids(retriever, ["salt"])[0], ids(retriever, ["salt" * 20], 9)[0]
    assert list(whole) == [*before, *ids(BiEncoder(model, pooling="mean"), ["salt"])[0][len(before) :][:4], *after, eos]
    assert len(cut) == 9 and list(cut[: len(before)]) == before and list(cut[8 - len(after) :]) == [*after, eos]
    retriever.save(tmp_path / "saved")
    for again in (BiEncoder(str(tmp_path / "saved")).tokenizer, SentenceTransformer(str(tmp_path / "saved")).tokenizer):
        assert again("salt" * 20, truncation=True, max_length=9)["input_ids"] == list(cut)


def test_a_published_model_of_last_tokens_is_taken_as_it_is(tmp_path: Path):
    model = tiny_llama(tmp_path / "llama")
    sentence_transformers_files(tmp_path / "llama", {"pooling_mode_lasttoken": True}, True, None)
    retriever = BiEncoder(model)
    assert retriever.settings.pooling == "lasttoken" and ids(retriever, ["salt"])[0][-1] != retriever.tokenizer.eos_token_id
    chosen = BiEncoder(model, append_eos=True)
    assert ids(chosen, ["salt"])[0][-1] == chosen.tokenizer.eos_token_id


def test_tokens_in_the_cache_tell_whether_they_end_with_eos(tmp_path: Path, folder: Path):
    model, collection = tiny_llama(tmp_path / "llama"), open_collection(f"local:{folder}:test")
    for append in (True, False, True):
        retriever = BiEncoder(model, append_eos=append, query_length=12, query_prefix="q: ")
        tokens = retriever.query_tokens(collection)
        assert len(tokens[0]) == 12 and (tokens[0][-1] == retriever.tokenizer.eos_token_id) == append


def test_a_tokenizer_that_ends_texts_itself_is_left_alone(tmp_path: Path):
    retriever = BiEncoder(tiny_llama(tmp_path / "llama", add_eos_token=True, add_bos_token=False))
    eos = retriever.tokenizer.eos_token_id
    assert list(ids(retriever, ["s"])[0]).count(eos) == 1


def test_a_tokenizer_whose_rules_are_options_gets_the_option(tmp_path: Path):
    retriever = BiEncoder(tiny_llama(tmp_path / "llama", add_bos_token=True, add_eos_token=False, bos_token="!"))
    bos, eos = retriever.tokenizer.bos_token_id, retriever.tokenizer.eos_token_id
    assert ids(retriever, ["s"])[0][0] == bos and ids(retriever, ["s"])[0][-1] == eos
    retriever.save(tmp_path / "saved")
    again = BiEncoder(str(tmp_path / "saved"))
    assert list(ids(again, ["s"])[0]) == list(ids(retriever, ["s"])[0])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": 0.0}, "above 0"),
        ({"scale": 200.0, "learn_scale": True}, "at most 100"),
        ({"lora_rank": 0}, "lora_rank=0"),
        ({"lora_rank": 4, "lora_targets": ["q_proj"]}, "all-linear, or a list of dense, key, query, value"),
        ({"append_eos": True}, "no eos token"),
        ({"passage_length": 513}, "reads 1 to 512 tokens"),
        ({"query_length": 0}, "query_length=0"),
    ],
)
def test_bad_options_are_told(tmp_path: Path, options: dict, told: str):
    with pytest.raises(UserError, match=told) as error:
        BiEncoder(tiny_bert(tmp_path / "bert"), **options)
    assert "\n" not in str(error.value)


OF_KIND = {"longformer": {"attention_window": [4]}, "luke": {"entity_vocab_size": 5}, "xmod": {"default_language": "en_XX"}}


@pytest.mark.parametrize("kind", OFFSET)
def test_positions_that_start_after_padding_are_counted_off(kind: str):
    more = {"vocab_size": 99, "max_position_embeddings": 20, "pad_token_id": 1, **OF_KIND.get(kind, {})}
    encoder = AutoModel.from_config(AutoConfig.for_model(kind, **{**SIZE, "num_hidden_layers": 1, **more})).eval()
    check_length("retriever.passage_length", 18, encoder.config)
    encoder(input_ids=torch.full((1, 18), 7))
    with pytest.raises(UserError, match="reads 1 to 18 tokens"):
        check_length("retriever.passage_length", 19, encoder.config)
    with pytest.raises((IndexError, RuntimeError)):
        encoder(input_ids=torch.full((1, 19), 7))


@pytest.mark.parametrize("kind", [BiEncoder, ColBERT, CrossEncoder, Splade], ids=lambda kind: kind.__name__)
def test_a_model_of_several_languages_that_names_none_is_told(kind: type, tmp_path: Path):
    config = XmodConfig(vocab_size=30522, max_position_embeddings=300, languages=["en_XX", "de_DE"], **SIZE)
    model = tiny_model(tmp_path / "xmod", config)
    with pytest.raises(UserError, match="xmod has layers for each language.*set default_language.* one of en_XX, de_DE"):
        kind(model)


def test_an_encoder_decoder_is_told(tmp_path: Path):
    T5Config(vocab_size=300, d_model=32, num_layers=1, num_heads=2, d_ff=32).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"an encoder-decoder \(t5\); choose an encoder or a decoder"):
        BiEncoder(str(tmp_path))


def test_a_tokenizer_without_pad_and_eos_is_told(tmp_path: Path):
    model = tiny_llama(tmp_path / "llama", eos_token=None, bos_token=None, unk_token=None)
    with pytest.raises(UserError, match="neither a pad nor an eos token"):
        BiEncoder(model)


def test_dropout_of_a_decoder_is_set(tmp_path: Path):
    config = BiEncoder(tiny_gpt2(tmp_path / "gpt2"), dropout=0.0).encoder.config
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0.0
