"""Which questions an annotation is of: as they are worded today, whoever else asks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from annotated import LIKELIHOOD, MODELS, POOL, RELSEL, annotated, begun, chosen, labels

from uar.annotation.annotation import Asked
from uar.annotation.selection import Annotations
from uar.collections import Collection, open_collection
from uar.collections.images import Image
from uar.pools.stored_pools import StoredPools
from uar.storage.files import write_json


@pytest.fixture
def collection(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:train")


def test_folders_of_one_name_do_not_mix(tmp_path: Path, folder: Path, collection: Collection) -> None:
    annotated(tmp_path / "store", collection, LIKELIHOOD)
    other = tmp_path / "elsewhere" / folder.name
    other.mkdir(parents=True)
    for path in folder.rglob("*.*"):
        (other / path.relative_to(folder)).parent.mkdir(exist_ok=True)
        (other / path.relative_to(folder)).write_text(path.read_text().replace("violin", "guitar"))
    same_name = open_collection(f"local:{other}:train")
    assert same_name.slug == collection.slug
    annotations = Annotations(tmp_path / "store")
    assert annotations.choose(Asked(LIKELIHOOD, MODELS, same_name), "latest") is None
    assert annotations.listed(same_name.corpus.hash) == [] and [a["questions"] for a in annotations.listed()] == [3]


def test_a_question_that_is_worded_anew_is_no_longer_in_the_annotation(
    tmp_path: Path, folder: Path, collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    annotated(tmp_path / "store", collection, LIKELIHOOD)
    queries = folder / "queries.jsonl"
    queries.write_text(queries.read_text().replace("what pumps blood", "which organ pumps blood"))
    reworded = open_collection(f"local:{folder}:train")
    assert chosen(tmp_path / "store", collection, LIKELIHOOD) and not caplog.records
    assert set(chosen(tmp_path / "store", reworded, LIKELIHOOD).concluded().judgements) == {"q2", "q3"}
    assert "train: 1 annotated questions have another text, image or other answers today and are left out" in caplog.text


def test_a_question_with_another_image_is_no_longer_in_the_annotation(
    tmp_path: Path, folder: Path, collection: Collection
) -> None:
    def pictured(name: str) -> Collection:
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + name[:1].encode())
        first = replace(collection.queries["q1"], image=Image(name, folder))
        return replace(collection, queries=collection.queries | {"q1": first})

    begun(tmp_path / "store", pictured("a.png"), RELSEL)
    found = {name: list(chosen(tmp_path / "store", pictured(name), RELSEL).pools) for name in ("a.png", "b.png", "a2.png")}
    assert found == {"a.png": ["q1", "q2", "q3"], "b.png": ["q2", "q3"], "a2.png": ["q1", "q2", "q3"]}


def test_questions_of_two_lots_that_have_the_same_ids_do_not_hide_each_other(
    tmp_path: Path, folder: Path, collection: Collection
) -> None:
    annotated(tmp_path / "store", collection, LIKELIHOOD)
    queries = folder / "queries.jsonl"
    queries.write_text(queries.read_text().replace('"text": "', '"text": "tell me ').replace("tell me what do", "what do"))
    other = open_collection(f"local:{folder}:train")
    annotated(tmp_path / "store", other, LIKELIHOOD)
    for one in (collection, other, collection):
        assert labels(chosen(tmp_path / "store", one, LIKELIHOOD)).keys() == collection.queries.keys()
    folders = [path.parent for path in (tmp_path / "store" / "pools").glob("*/*/about.json")]
    parts = [len(list(place.glob("*.parquet"))) for place in folders]
    begun(tmp_path / "store", collection, LIKELIHOOD)
    assert parts == [2] and [len(list(place.glob("*.parquet"))) for place in folders] == parts


def test_who_is_asked_for_calibration_alone_is_learned_from_once_a_run_is_about_it(
    tmp_path: Path, collection: Collection
) -> None:
    asked = Asked(LIKELIHOOD, MODELS, collection)
    wanted = []
    for query_ids, besides in (("q1", "q3"), {"q2", "q3"}), (("q3",), set()), (("q1", "q2", "q3"), {"q1", "q2"}):
        pools = dict.fromkeys(query_ids, POOL) | dict.fromkeys(sorted(besides), POOL)
        begun = Annotations(tmp_path / "store").begin(asked, {"depth": 4}, pools, {}, besides)
        wanted.append((begun.wanted, chosen(tmp_path / "store", collection, LIKELIHOOD).wanted))
    assert wanted == [(["q1"], ["q1"]), (["q3"], ["q1", "q3"]), (["q1", "q3"], ["q1", "q3"])]
    other = dict.fromkeys(["q1", "q2"], POOL[:2])
    Annotations(tmp_path / "store").begin(asked, {"depth": 2}, other, {}, {"q1"})
    assert chosen(tmp_path / "store", collection, LIKELIHOOD, "union").wanted == ["q1", "q2", "q3"]


def test_what_was_asked_besides_in_one_lot_is_learned_from_in_another_that_has_the_same_ids(
    tmp_path: Path, collection: Collection
) -> None:
    queries = {q: replace(query, text=f"tell me {query.text}") for q, query in collection.queries.items()}
    first, second = (Asked(LIKELIHOOD, MODELS, of) for of in (collection, replace(collection, queries=queries)))
    store = Annotations(tmp_path / "store")
    pools = dict.fromkeys(["q1", "q2", "q3"], POOL)
    assert store.begin(first, {"depth": 4}, pools, {}, {"q1", "q2"}).wanted == ["q3"]
    assert store.begin(second, {"depth": 4}, pools, {}, {"q2", "q3"}).wanted == ["q1"]
    assert [store.choose(one, "latest").wanted for one in (first, second)] == [["q3"], ["q1"]]  # type: ignore[union-attr]
    (place,) = (tmp_path / "store").glob("pools/*/*/besides.json")
    write_json(place, ["q1", "q3"])  # of an earlier version
    store.begin(second, {"depth": 4}, {"q3": POOL}, {})
    assert store.choose(second, "latest").wanted == ["q2", "q3"]  # type: ignore[union-attr]


def test_shards_that_begin_at_once_leave_each_other_what_they_are_about(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked, add = Annotations(tmp_path / "store"), Asked(LIKELIHOOD, MODELS, collection), StoredPools.add

    def begin(query_ids: Sequence[str], besides: set[str]) -> None:
        store.begin(asked, {"depth": 4}, dict.fromkeys([*query_ids, *sorted(besides)], POOL), {}, besides)

    other = Thread(target=begin, args=(["q1", "q2"], {"q3"}))

    def slow(*arguments: object) -> int:
        if not other.ident:
            other.start()
            other.join(0.5)
        return add(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(StoredPools, "add", slow)
    begin(["q3"], {"q1"})
    other.join()
    assert chosen(tmp_path / "store", collection, LIKELIHOOD).wanted == ["q1", "q2", "q3"]
