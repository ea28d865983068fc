"""BM25's index: whole blocks of passages, what is kept of a search, and one build by many."""

import threading
from pathlib import Path

import numpy as np
import pytest

from uar.collections import Corpus
from uar.collections.documents import build_corpus
from uar.retrievers.bm25 import lexical_index, postings, terms
from uar.retrievers.bm25.kernels import BLOCK
from uar.retrievers.bm25.lexical_index import BM25
from uar.storage.files import is_whole, whole_dir
from uar.storage.locks import built_once
from uar.storage.ordering import best_first

WORDS = [f"word{letter}" for letter in "abcdefghij"]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """More passages than are scored at a time, of few words, so that many scores are equal."""
    drawn = np.random.default_rng(0)
    texts = (" ".join(drawn.choice(WORDS, drawn.integers(1, 5))) for _ in range(BLOCK + 700))
    ids = (f"p{number}" for number in drawn.permutation(BLOCK + 700))
    rows = ((doc_id, "", text) for doc_id, text in zip(ids, texts, strict=True))
    return build_corpus(tmp_path_factory.mktemp("wide") / "corpus", rows)


def test_the_best_of_several_blocks_are_those_of_all_scores(wide: Corpus, own_cache: Path) -> None:
    bm25 = BM25.open(wide)
    queries = ["worda wordb", "wordc", "wordd worde wordf wordg", "wordh wordh wordi"]
    every = list(range(len(wide)))
    ids = wide.ids_at(every)
    for query, hits, scores in zip(
        queries, bm25.search(queries, 50), bm25.scores(queries, [np.array(every)] * 4), strict=True
    ):
        assert hits == best_first((d, float(s)) for d, s in zip(ids, scores, strict=True) if s > 0)[:50], query
    assert np.flatnonzero(scores)[-1] >= BLOCK


def test_an_index_that_is_written_part_by_part_is_the_same(wide: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A few passages and a few terms at a time, words forgotten meanwhile: to the byte."""
    files: list[dict[str, bytes]] = []
    for cache, (block, held, remembered) in {"whole": (1 << 20,) * 3, "parts": (10_000, 20_000, 3)}.items():
        monkeypatch.setattr(terms, "BLOCK", block)
        monkeypatch.setattr(terms, "REMEMBERED", remembered)
        monkeypatch.setattr(postings, "HELD", held)
        monkeypatch.setenv("UAR_CACHE", str(tmp_path / cache))
        BM25.open(wide)
        (folder,) = (tmp_path / cache / "bm25").iterdir()
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1] and {"rows.npy", "weights.npy", "ends.npy", "terms.arrow"} < set(files[0])


def test_what_was_found_is_kept_block_by_block(wide: Corpus, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical_index, "BLOCK", 2)
    bm25 = BM25.open(wide)
    queries = ["worda", "wordb", "wordc", "wordd", "worde"]
    expected = bm25.search(queries, 20)
    asked: list[list[str]] = []
    best = BM25._best

    def counted(self: BM25, block: list[str], *more: object) -> object:
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(block)
        return best(self, block, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(BM25, "_best", counted)
    with pytest.raises(KeyboardInterrupt):
        list(bm25.found(queries, 20, keep=True))
    asked[:] = [[], []]  # no further interruption
    assert list(bm25.found(queries, 20, keep=True)) == expected
    assert asked[2:] == [["wordc", "wordd"], ["worde"]]
    assert list(bm25.found(queries, 20, keep=True)) == expected and len(asked) == 4
    list(bm25.found(queries, 19, keep=True))  # another depth is another search
    assert len(asked) == 7


def test_of_many_that_need_a_folder_of_the_cache_one_builds_it(own_cache: Path) -> None:
    folder, built, both = own_cache / "things" / "one", [], threading.Barrier(4)

    def build() -> None:
        built.append(1)
        with whole_dir(folder) as beside:
            (beside / "content").write_text("whole")

    def need() -> None:
        both.wait()
        assert built_once(folder, build) == folder

    many = [threading.Thread(target=need) for _ in range(4)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    assert built == [1] and is_whole(folder)
