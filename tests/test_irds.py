"""Collections of ir_datasets: what becomes of their passages, judgements and faults."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import ir_datasets
import pytest
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import TrecQrels, TsvDocs, TsvQueries
from ir_datasets.util import LocalDownload

from uar.collections import open_collection
from uar.errors import UserError
from uar.pools import BM25Pool


@pytest.fixture
def register(tmp_path: Path, own_cache: Path) -> Iterator[Callable[..., str]]:
    """Register a dataset on TSV files with ir_datasets' own classes; returns its id."""

    def make(docs: str, queries: str, qrels: str | None, namespace: str | None = None) -> str:
        name = f"own-{uuid.uuid4().hex}"
        place = tmp_path / name
        place.mkdir()
        for file, text in (("docs.tsv", docs), ("queries.tsv", queries), ("qrels.txt", qrels or "")):
            (place / file).write_text(text, encoding="utf-8")
        parts = [
            TsvDocs(LocalDownload(place / "docs.tsv"), namespace=namespace),
            TsvQueries(LocalDownload(place / "queries.tsv"), namespace=namespace),
        ]
        if qrels is not None:
            parts.append(TrecQrels(LocalDownload(place / "qrels.txt"), {1: "relevant"}))
        ir_datasets.registry.register(name, Dataset(*parts))
        return name

    yield make


def test_an_ir_datasets_id_opens_as_a_collection(register: Callable[..., str]) -> None:
    name = register("d1\theart and blood\nd2\tbees\n", "q1\twhat pumps\nq2\tunjudged\n", "q1 0 d1 2\nq1 0 d2 0\n")
    found = open_collection(f"irds:{name}")
    assert found.slug == name
    assert list(found.corpus.ids()) == ["d1", "d2"]
    assert found.corpus.text(found.corpus.row("d2")) == "bees"
    assert {q: query.text for q, query in found.queries.items()} == {"q1": "what pumps"}
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}}
    assert open_collection(f"irds:{name}").hash == found.hash


def test_an_ir_datasets_id_without_judgements_keeps_every_query(register: Callable[..., str]) -> None:
    name = register("d1\tx\n", "q1\ta\nq2\tb\n", None)
    found = open_collection(f"irds:{name}")
    assert list(found.queries) == ["q1", "q2"]
    assert found.qrels == {}


@pytest.mark.parametrize("namespace", [None, "bright"])  # in which ir_datasets has 24 corpora
def test_two_ir_datasets_of_one_namespace_do_not_share_a_corpus(register: Callable[..., str], namespace: str | None) -> None:
    first, second = (register(f"d1\t{text}\n", "q1\ta\n", "q1 0 d1 1\n", namespace) for text in ("one", "two"))
    assert open_collection(f"irds:{first}").corpus.text(0) == "one"
    assert open_collection(f"irds:{second}").corpus.text(0) == "two"


def test_the_splits_of_an_ir_datasets_set_share_its_corpus(register: Callable[..., str], own_cache: Path) -> None:
    name = register("d1\tx\n", "q1\ta\n", None)
    ir_datasets.registry.register(f"{name}/test", Dataset(ir_datasets.load(name)))
    assert len({open_collection(f"irds:{part}").corpus.folder for part in (name, f"{name}/test")}) == 1


class TitledDoc(NamedTuple):
    doc_id: str
    title: str
    body: str

    def default_text(self) -> str:
        return f"{self.title} {self.body}"


class NaturalDoc(NamedTuple):
    doc_id: str
    document_title: str
    text: str


@pytest.mark.parametrize("kind", [TitledDoc, NaturalDoc])
def test_a_title_of_an_ir_datasets_document_is_read_once(tmp_path: Path, own_cache: Path, kind: type) -> None:
    (tmp_path / "docs.tsv").write_text("d1\tHearts\tThey pump blood.\n")
    (tmp_path / "queries.tsv").write_text("q1\twhat pumps\n")
    name = f"own-{uuid.uuid4().hex}"
    docs = TsvDocs(LocalDownload(tmp_path / "docs.tsv"), doc_cls=kind)
    ir_datasets.registry.register(name, Dataset(docs, TsvQueries(LocalDownload(tmp_path / "queries.tsv"))))
    assert list(open_collection(f"irds:{name}").corpus.texts()) == ["Hearts They pump blood."]


def test_a_judged_passage_that_an_ir_datasets_corpus_lacks_stays_out_of_pools(register: Callable[..., str]) -> None:
    name = register("d1\theart\n", "q1\theart\n", "q1 0 gone 1\n")
    found = open_collection(f"irds:{name}")
    assert found.qrels == {"q1": {"gone": 1}}
    assert BM25Pool(depth=4).pools(found, ["q1"]) == {"q1": ["d1"]}


def test_an_ir_datasets_file_that_is_not_there_is_told_in_one_error(register: Callable[..., str], tmp_path: Path) -> None:
    name = register("d1\tx\n", "q1\ta\n", "q1 0 d1 1\n")
    (tmp_path / name / "docs.tsv").unlink()
    with pytest.raises(UserError, match=f"irds:{name}: ir_datasets could not read"):
        open_collection(f"irds:{name}")


def test_an_unknown_ir_datasets_id_is_refused() -> None:
    with pytest.raises(UserError, match=r"knows no 'nowhere/test'"):
        open_collection("irds:nowhere/test")


def test_a_pair_that_an_ir_datasets_set_judges_twice_keeps_its_last_grade(
    register: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    name = register("d1\tx\n", "q1\ta\n", "q1 0 d1 1\nq1 0 d1 1\nq1 0 d1 2\n")
    assert open_collection(f"irds:{name}").qrels == {"q1": {"d1": 2}}
    assert f"irds:{name}: 1 judgements stand there again with another grade" in caplog.text


def test_an_ir_datasets_id_with_white_space_is_refused(register: Callable[..., str]) -> None:
    for docs, queries in (("d 1\tx\n", "q1\ta\n"), ("d1\tx\n", "q 1\ta\n")):
        name = register(docs, queries, None)
        with pytest.raises(UserError, match=f"irds:{name}: the id '. 1' has white space or nothing in it"):
            open_collection(f"irds:{name}")
