"""Presets of published models: a folder of the same form, with small random weights, gives what others make of it."""

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from tiny_models import EOS, MINILM, SIZE, puts_around_texts, sentence_transformers_files, tiny_bert, tiny_mlm, tiny_model
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    ModernBertConfig,
    Qwen3Config,
    XLMRobertaConfig,
)

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.launch.resolvers import register_resolvers
from uar.machine.model_files import locate
from uar.retrievers.encode import encode_rows
from uar.retrievers.model_folder import open_model

MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
SPECIAL = {"pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102, "cls_token_id": 101, "sep_token_id": 102}
OF_SPARSE = {"model_type": "SparseEncoder", "prompts": {"query": "", "document": ""}, "similarity_fn_name": "dot"}
STANFORD = {  # those of artifact.metadata that say how texts are encoded
    "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_token": "[Q]", "doc_token": "[D]", "dim": 16,
    "similarity": "cosine", "query_maxlen": 12, "doc_maxlen": 20, "attend_to_mask_tokens": False, "mask_punctuation": True,
}  # fmt: skip


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def preset(name: str, model: str) -> Any:
    register_resolvers()
    words = [f"retriever={name}", f"retriever.model={model}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", words).retriever
    try:
        return instantiate(cfg, _convert_="all").eval()
    except InstantiationException as error:  # commands tell its cause alone
        raise error.__cause__ or error from None


def encoded(encoder: Any, toy: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Of all queries and passages."""
    asked, passages = encoder.query_tokens(toy), encoder.passage_tokens(toy)
    return encode_rows(encoder, asked, [0, 1, 2], "fp32", "query"), encode_rows(encoder, passages, list(range(6)), "fp32")


def texts(toy: Collection) -> tuple[list[str], list[str]]:
    return [q.text for q in toy.queries.values()], [toy.corpus.text(row) for row in range(6)]


def pooling(mode: str) -> dict[str, Any]:
    return {"word_embedding_dimension": 32, **{f"pooling_mode_{name}": name == mode for name in MODES}, "include_prompt": True}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def bge(place: Path) -> str:
    """BAAI/bge-base-en-v1.5: no prompts in its files."""
    tiny_bert(place)
    sentence_transformers_files(place, pooling("cls_token"), True, None)
    write(place / "config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.2.2"}})
    write(place / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": True})
    return str(place)


def gte(place: Path) -> str:
    """Alibaba-NLP/gte-modernbert-base: cosine, but no Normalize."""
    tiny_model(place, ModernBertConfig(vocab_size=30522, **SIZE, **SPECIAL))
    sentence_transformers_files(place, pooling("cls_token"), False, {})
    own = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write(place / "config_sentence_transformers.json", own)
    return str(place)


def qwen3_embedding(place: Path) -> str:
    """Qwen/Qwen3-Embedding-0.6B: a decoder; its tokenizer ends a text with the pad token, and pads on the left."""
    ids = {"pad_token_id": 256, "eos_token_id": 256, "bos_token_id": 256}
    config = Qwen3Config(vocab_size=300, **SIZE, num_key_value_heads=1, head_dim=16, **ids)
    tiny_model(place, config, pad_token=EOS, padding_side="left")
    puts_around_texts(str(place), [], [EOS])
    prompts = {
        "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
        "document": "",
    }
    sentence_transformers_files(place, pooling("lasttoken"), True, prompts)
    return str(place)


def modernbert(place: Path) -> str:
    """answerdotai/ModernBERT-base: a masked language model without files of sentence-transformers."""
    tiny_model(place, ModernBertConfig(vocab_size=30522, **SIZE, **SPECIAL), AutoModelForMaskedLM)
    return str(place)


@pytest.mark.parametrize("make", [bge, gte, qwen3_embedding, modernbert])
def test_an_encoder_gives_the_vectors_of_sentence_transformers(tmp_path: Path, toy: Collection, make: Callable[[Path], str]):
    place = make(tmp_path / "model")
    encoder = preset(make.__name__, place)
    theirs = SentenceTransformer(place, device="cpu")
    asked, passages = texts(toy)
    if make is bge:  # as its card does it
        asked = [f"Represent this sentence for searching relevant passages: {text}" for text in asked]
    expected = (
        theirs.encode_query(asked, normalize_embeddings=True),
        theirs.encode_document(passages, normalize_embeddings=True),
    )
    for found, wanted in zip(encoded(encoder, toy), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    assert np.ptp(expected[0] @ expected[1].T) > 1e-3
    encoder.save(tmp_path / "out")
    again = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    plain = texts(toy)[0]
    assert again.encode_query(plain, normalize_embeddings=True) == pytest.approx(expected[0], abs=1e-5)


def bge_reranker(place: Path) -> str:
    """BAAI/bge-reranker-v2-m3: pairs are <s> query </s></s> passage </s>, of one type."""
    config = XLMRobertaConfig(
        vocab_size=30522, **SIZE, type_vocab_size=1, num_labels=1, pad_token_id=0, max_position_embeddings=514
    )
    tiny_model(place, config, AutoModelForSequenceClassification)
    path = place / "tokenizer.json"
    rules = json.loads(path.read_text())
    begin, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    rules["post_processor"] |= {"single": [begin, first, end], "pair": [begin, first, end, end, second, end]}
    path.write_text(json.dumps(rules))
    settings = json.loads((place / "tokenizer_config.json").read_text())
    names = {"model_input_names": ["input_ids", "attention_mask"], "tokenizer_class": "PreTrainedTokenizerFast"}
    write(place / "tokenizer_config.json", {**settings, **names})
    write(place / "sentence_bert_config.json", {"max_seq_length": 8192, "do_lower_case": False})
    return str(place)


def test_a_re_ranker_gives_the_scores_of_its_card(tmp_path: Path, toy: Collection):
    place = bge_reranker(tmp_path / "model")
    ranker = preset("bge_reranker", place)
    asked, passages = texts(toy)
    pairs = [(text, passage) for text in asked for passage in passages]
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForSequenceClassification.from_pretrained(place).eval()
    inputs = tokenizer(pairs, padding=True, truncation=True, return_tensors="pt", max_length=512)
    with torch.no_grad():
        by_card = model(**inputs, return_dict=True).logits.view(-1).float().numpy()
        queries, own = ranker.query_tokens(toy), ranker.passage_tokens(toy)
        found = ranker([(queries[q], own[p]) for q in range(3) for p in range(6)]).numpy()
    theirs = TheirCrossEncoder(place, device="cpu", max_length=512).predict(pairs, activation_fn=torch.nn.Identity())
    assert found == pytest.approx(by_card, abs=1e-5) and np.ptp(found) > 0.01
    assert found == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("published", [True, False])
def test_splade_gives_the_scores_of_sentence_transformers(tmp_path: Path, toy: Collection, published: bool):
    """naver/splade-cocondenser-ensembledistil, with its files of sentence-transformers and, as it was at first, without."""
    place = tiny_mlm(tmp_path / "model")
    if published:
        kinds = [("", "MLMTransformer"), ("1_SpladePooling", "SpladePooling")]
        name = "sentence_transformers.sparse_encoder.models"
        modules = [{"idx": at, "name": str(at), "path": p, "type": f"{name}.{kind}"} for at, (p, kind) in enumerate(kinds)]
        write(tmp_path / "model" / "modules.json", modules)
        settings = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": 30522}
        write(tmp_path / "model" / "1_SpladePooling" / "config.json", settings)
        write(tmp_path / "model" / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
        write(tmp_path / "model" / "config_sentence_transformers.json", OF_SPARSE)
    encoder = preset("splade_pp", place)
    theirs = SparseEncoder(place, device="cpu")
    asked, passages = texts(toy)
    scores = theirs.similarity(theirs.encode_query(asked), theirs.encode_document(passages)).numpy()
    queries, vectors = encoded(encoder, toy)
    assert queries @ vectors.T == pytest.approx(scores, rel=1e-5) and np.ptp(scores) > 0.01
    assert type(open_model(place)).__name__ == ("Splade" if published else "BiEncoder")


def test_sparse_queries_without_a_model_are_read_as_they_are_published(tmp_path: Path, toy: Collection):
    """opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill: the transformer at the root, idf in a folder."""
    place = tmp_path / "model"
    tiny_mlm(place)
    static, pooled = place / "query_0_SparseStaticEmbedding", place / "document_1_SpladePooling"
    AutoTokenizer.from_pretrained(place).save_pretrained(static)
    save_file({"weight": torch.linspace(0, 9, 30522)}, static / "model.safetensors")
    write(static / "config.json", {"frozen": True})
    settings = {"pooling_strategy": "max", "activation_function": "log1p_relu", "word_embedding_dimension": 30522}
    write(pooled / "config.json", settings)
    name = "sentence_transformers.sparse_encoder.models"
    kinds = {static.name: "SparseStaticEmbedding", "": "MLMTransformer", pooled.name: "SpladePooling"}
    types = {at: f"{name}.{kind}" for at, kind in kinds.items()}
    router = {
        "structure": {"query": [static.name], "document": ["", pooled.name]},
        "parameters": {"default_route": "document"},
    }
    write(place / "router_config.json", {"types": types, **router})
    write(place / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}])
    write(place / "config_sentence_transformers.json", OF_SPARSE)
    encoder, theirs = preset("splade", str(place)), SparseEncoder(str(place), device="cpu")
    asked, passages = texts(toy)
    scores = theirs.similarity(theirs.encode_query(asked), theirs.encode_document(passages)).numpy()
    queries, vectors = encoded(encoder, toy)
    assert queries @ vectors.T == pytest.approx(scores, rel=1e-5) and encoder.queries == "tokens"


def colbertv2(place: Path) -> str:
    """colbert-ir/colbertv2.0: the linear layer lies among the encoder's weights, settings are in artifact.metadata."""
    tiny_bert(place)
    weights = {f"bert.{name}": value for name, value in load_file(place / "model.safetensors").items()}
    linear = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    save_file({**weights, "linear.weight": linear}, place / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((place / "config.json").read_text())
    write(place / "config.json", {**config, "architectures": ["HF_ColBERT"]})
    write(place / "artifact.metadata", STANFORD)
    return str(place)


def test_colbert_gives_the_scores_of_sentence_transformers(tmp_path: Path, toy: Collection):
    place = colbertv2(tmp_path / "model")
    encoder = preset("colbertv2", place)
    assert encoder.lengths == {"colbert.query_length": 12, "colbert.passage_length": 20} and encoder.dim == 16
    queries, vectors = encoded(encoder, toy)
    found = encoder.similarity(torch.from_numpy(queries), torch.from_numpy(vectors)).numpy()
    encoder.save(tmp_path / "out")
    asked, passages = texts(toy)
    for folder in (place, str(tmp_path / "out")):
        theirs = MultiVectorEncoder(folder, device="cpu")
        scores = theirs.similarity(theirs.encode_query(asked), theirs.encode_document(passages)).numpy()
        assert found == pytest.approx(scores, abs=1e-4)
    assert np.ptp(found) > 0.01
    assert type(open_model(place)).__name__ == "ColBERT"
    write(tmp_path / "model" / "artifact.metadata", {**STANFORD, "query_token_id": "[no token]"})
    with pytest.raises(UserError, match=r"its tokenizer lacks \[no token\]"):
        preset("colbertv2", place)
    write(tmp_path / "model" / "artifact.metadata", {**STANFORD, "attend_to_mask_tokens": True})
    with pytest.raises(UserError, match="choose such a multi-vector model"):
        preset("colbertv2", place)


def pylate(place: Path, **settings: Any) -> str:
    """lightonai/GTE-ModernColBERT-v1: an encoder and PyLate's own linear layer, the marks are tokens of their own."""
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    tokenizer.add_tokens(["[Q] ", "[D] "])
    tokenizer.pad_token = tokenizer.mask_token
    torch.manual_seed(0)
    AutoModel.from_config(BertConfig(vocab_size=len(tokenizer), **SIZE)).save_pretrained(place)
    tokenizer.save_pretrained(place)
    types = {"": "sentence_transformers.models.Transformer", "1_Dense": "pylate.models.Dense.Dense"}
    write(place / "modules.json", [{"idx": at, "name": str(at), "path": p, "type": types[p]} for at, p in enumerate(types)])
    size = {"in_features": 32, "out_features": 16, "bias": False, "use_residual": False}
    (place / "1_Dense").mkdir()
    write(place / "1_Dense" / "config.json", {**size, "activation_function": "torch.nn.modules.linear.Identity"})
    save_file({"linear.weight": torch.randn(16, 32)}, place / "1_Dense" / "model.safetensors")
    lengths = {"query_length": 12, "document_length": 20, "attend_to_expansion_tokens": False}
    write(
        place / "config_sentence_transformers.json", {"query_prefix": "[Q] ", "document_prefix": "[D] ", **lengths, **settings}
    )
    return str(place)


def of_pylate(place: str, texts: list[str], mark: str, length: int, query: bool) -> list[torch.Tensor]:
    """The vectors of each text by the steps of PyLate: its mark after the first token, queries filled up with mask tokens,
    punctuation of passages left out."""
    tokenizer, encoder = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place).eval()
    linear = load_file(f"{place}/1_Dense/model.safetensors")["linear.weight"]
    skipped, found = tokenizer.convert_tokens_to_ids(list(string.punctuation)), []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=length - 1)["input_ids"]
        ids = [ids[0], tokenizer.convert_tokens_to_ids(mark), *ids[1:]]
        asked = [*ids, *[tokenizer.mask_token_id] * (length - len(ids))] if query else ids
        mask = torch.tensor([[1] * len(ids) + [0] * (len(asked) - len(ids))])
        states = encoder(input_ids=torch.tensor([asked]), attention_mask=mask).last_hidden_state[0]
        kept = [at for at, number in enumerate(asked) if query or number not in skipped]
        found.append(torch.nn.functional.normalize(states @ linear.T, dim=-1)[kept])
    return found


def test_a_model_of_pylate_gives_the_scores_of_its_steps(tmp_path: Path, toy: Collection):
    place = pylate(tmp_path / "model")
    assert type(open_model(place)).__name__ == "ColBERT"
    encoder = preset("colbertv2", place)
    assert encoder.lengths == {"colbert.query_length": 12, "colbert.passage_length": 20} and encoder.dim == 16
    queries, vectors = encoded(encoder, toy)
    scores = encoder.similarity(torch.from_numpy(queries), torch.from_numpy(vectors)).numpy()
    asked, passages = texts(toy)
    with torch.inference_mode():
        theirs = of_pylate(place, asked, "[Q] ", 12, True), of_pylate(place, passages, "[D] ", 20, False)
    expected = [[float((query @ passage.T).max(dim=1).values.sum()) for passage in theirs[1]] for query in theirs[0]]
    assert scores == pytest.approx(np.array(expected), abs=1e-4) and np.ptp(scores) > 0.01
    encoder.save(tmp_path / "out")
    again = preset("colbertv2", str(tmp_path / "out"))
    assert encoded(again, toy)[1] == pytest.approx(vectors, abs=1e-5)
    write(tmp_path / "model" / "1_Dense" / "config.json", {"activation_function": "Identity", "use_residual": True})
    for faulty in (place, pylate(tmp_path / "attending", attend_to_expansion_tokens=True)):
        with pytest.raises(UserError, match="choose such a multi-vector model"):
            preset("colbertv2", faulty)


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("bge", bge_reranker, "it is a cross-encoder, no encoder of one vector a text; use it with retriever=cross_encoder"),
        ("modernbert", colbertv2, "it is a late-interaction retriever, .*use it with retriever=colbert"),
        ("bge_reranker", bge, "it has no scoring head, so it is no cross-encoder"),
        ("colbertv2", gte, "it has no layer that makes a vector a token, so it is no multi-vector model"),
        ("splade_pp", bge, "its files are not those of a masked language model with max pooling"),
        ("splade_pp", colbertv2, "it has no masked-language-model head"),
        ("splade_pp", bge_reranker, "it has no masked-language-model head"),
    ],
)
def test_a_model_of_another_kind_than_its_preset_says_is_refused(tmp_path: Path, name: str, make: Any, told: str):
    with pytest.raises(UserError, match=told):
        preset(name, make(tmp_path / "model"))
