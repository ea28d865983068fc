"""The packaged collection keeps its promises."""

import json
import re
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from uar.collections import Collection, open_collection
from uar.collections.answer_match import normalise
from uar.collections.reference import MINI
from uar.evaluation.measures import means, per_query
from uar.retrievers.bm25.lexical_index import BM25

SPLITS = {"train": 140, "dev": 30, "test": 40, "ood": 30}


@pytest.fixture(scope="module")
def mini() -> dict[str, Collection]:
    return {split: open_collection(f"mini:{split}") for split in SPLITS}


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (MINI / name).read_text(encoding="utf-8").splitlines()]


def kinds(collection: Collection) -> set[str]:
    return {row["kind"] for row in rows("queries.jsonl") if row["_id"] in collection.queries}


def test_passages_are_many_and_of_30_to_90_words() -> None:
    lengths = {row["_id"]: len(row["text"].split()) for row in rows("corpus.jsonl")}
    assert len(lengths) >= 500
    assert {i: n for i, n in lengths.items() if not 30 <= n <= 90} == {}


def test_passages_cover_at_least_60_subjects() -> None:
    passages = rows("corpus.jsonl")
    assert len({row["subject"] for row in passages}) >= 60
    assert all(row["subject"].strip() and row["kind"].strip() for row in passages)
    by_subject = defaultdict(set)
    for row in passages:
        by_subject[row["subject"]].add(row["kind"])
    assert {s for s, of_kind in by_subject.items() if len(of_kind) > 1} == set()


def test_ids_and_texts_are_unique() -> None:
    for name in ("corpus.jsonl", "queries.jsonl"):
        for field in ("_id", "text"):
            counts = Counter(row[field] for row in rows(name))
            assert [value for value, n in counts.items() if n > 1] == [], (name, field)


def test_splits_are_large_enough_and_share_no_question(mini: dict[str, Collection]) -> None:
    for split, least in SPLITS.items():
        assert len(mini[split].queries) >= least, split
    ids = [q for collection in mini.values() for q in collection.queries]
    assert len(ids) >= 240
    assert len(set(ids)) == len(ids) == len(rows("queries.jsonl"))
    assert {path.stem for path in (MINI / "qrels").glob("*.tsv")} == set(SPLITS)


def test_the_kinds_of_ood_are_in_no_other_split(mini: dict[str, Collection]) -> None:
    ood = kinds(mini["ood"])
    assert ood
    for split in ("train", "dev", "test"):
        assert kinds(mini[split]).isdisjoint(ood), split
    kind_of = {row["_id"]: row["kind"] for row in rows("corpus.jsonl")}
    useful = {d for split in ("train", "dev", "test") for q in mini[split].queries for d in mini[split].positives(q)}
    assert {kind_of[d] for d in useful}.isdisjoint(ood)


def test_questions_are_of_their_passages_kind(mini: dict[str, Collection]) -> None:
    kind_of = {row["_id"]: row["kind"] for row in rows("corpus.jsonl") + rows("queries.jsonl")}
    for collection in mini.values():
        for query_id in collection.queries:
            assert {kind_of[d] for d in collection.positives(query_id)} == {kind_of[query_id]}, query_id


def test_no_two_passages_share_a_run_of_12_words() -> None:
    owners = defaultdict(set)
    for row in rows("corpus.jsonl"):
        words = re.findall(r"\w+", row["text"].lower())
        for at in range(len(words) - 11):
            owners[tuple(words[at : at + 12])].add(row["_id"])
    assert sorted(sorted(ids) for ids in owners.values() if len(ids) > 1) == []


def test_passages_do_not_follow_a_template() -> None:
    openings = Counter(tuple(row["text"].lower().split()[:4]) for row in rows("corpus.jsonl"))
    assert openings.most_common(1)[0][1] <= 5


def test_grades_are_two_one_and_nought_and_only_two_is_positive(mini: dict[str, Collection]) -> None:
    for collection in mini.values():
        assert {g for grades in collection.qrels.values() for g in grades.values()} <= {0, 1, 2}
        assert (collection.positive_grade, collection.graded) == (2, False)


def test_every_question_has_a_useful_passage_and_three_on_topic_only(mini: dict[str, Collection]) -> None:
    for collection in mini.values():
        for query_id in collection.queries:
            grades = Counter(collection.qrels[query_id].values())
            assert grades[2] >= 1, query_id
            assert grades[1] >= 3, query_id


def holds(passage: str, answer: str) -> bool:
    return f" {normalise(answer)} " in f" {normalise(passage)} "


def test_a_gold_answer_occurs_in_a_useful_passage(mini: dict[str, Collection]) -> None:
    without = []
    for collection in mini.values():
        for query_id, query in collection.queries.items():
            assert query.answers, query_id
            assert all(normalise(a) for a in query.answers), query_id
            texts = [collection.corpus.parts(d)[1] for d in collection.positives(query_id)]
            if not any(holds(text, answer) for text in texts for answer in query.answers):
                without.append(query_id)
    assert without == []


def test_questions_do_not_copy_their_passage(mini: dict[str, Collection]) -> None:
    for collection in mini.values():
        for query_id, query in collection.queries.items():
            words = re.findall(r"\w+", query.text.lower())
            runs = {" ".join(words[at : at + 8]) for at in range(len(words) - 7)}
            for doc_id in collection.positives(query_id):
                text = " ".join(re.findall(r"\w+", collection.corpus.parts(doc_id)[1].lower()))
                assert not [run for run in runs if run in text], query_id


def test_bm25_is_neither_enough_nor_useless_on_test(mini: dict[str, Collection]) -> None:
    test = mini["test"]
    ids = list(test.queries)
    hits = BM25.open(test.corpus).search([test.queries[q].text for q in ids], 10)
    scores = means(per_query(test, dict(zip(ids, hits, strict=True)), ("nDCG@10",), ids))
    assert 0.45 <= scores["nDCG@10"] <= 0.85


def test_all_splits_share_one_corpus(mini: dict[str, Collection]) -> None:
    for one, other in combinations(mini.values(), 2):
        assert one.corpus.folder == other.corpus.folder
