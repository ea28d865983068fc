"""Labels in columns: the same as those made one query at a time, to the digit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from uar.annotation.annotation import Asked
from uar.annotation.annotators import Judgement, Likelihood
from uar.annotation.concluded_judgements import Judgements
from uar.annotation.conclusions import Conclusions, Ended, batches_of
from uar.annotation.judgement import Judged
from uar.annotation.selection import Annotations
from uar.collections import Collection, open_collection
from uar.collections.token_ids import Tokens
from uar.labels import Example, LabelContext, LLMLabels, Pair, Stage
from uar.labels.corrupt import corrupted
from uar.labels.example_columns import Examples
from uar.labels.examples import example_of
from uar.labels.label_table import write_label_table
from uar.pools.stored_pools import PoolTable, StoredPools, pools_of
from uar.storage.files import write_json
from uar.training.identity import label_hash


@pytest.fixture(scope="module")
def mini() -> Collection:
    return open_collection("mini:train")


def judged_of(collection: Collection, scored: bool) -> dict[str, list[Judgement]]:
    """Some labels, grades and scores; of the first question none is positive."""
    rng, found = np.random.default_rng(0), {}
    for query_id in list(collection.queries)[:60]:
        pool = collection.corpus.ids_at(rng.permutation(len(collection.corpus))[:6])
        pool = list(dict.fromkeys([*pool, *collection.trainable(query_id)[:1]]))
        grades = rng.integers(3, size=len(pool)).tolist() if found else [0] * len(pool)
        scores = [None if not scored or g == 1 else float(rng.random()) for g in grades]
        by = ["", "first", "second"]
        found[query_id] = [
            Judgement(d, int(g == 2), g, s, rank, by=by[rank % 3])
            for rank, (d, g, s) in enumerate(zip(pool, grades, scores, strict=True), start=1)
        ]
    return found


def one_at_a_time(collection: Collection, judged: Judged, human_positive: str) -> list[Example]:
    """What the columns must say."""
    graded = len({j.grade for of_query in judged.values() for j in of_query}) > 2
    examples = []
    for query_id, judgements in judged.items():
        people = [] if human_positive == "random" else collection.trainable(query_id)
        origin, pairs = collection.origin_of(query_id), []
        for j in judgements:
            both = j.doc_id in people
            if both and human_positive == "exclude":
                continue
            said = f"llm:{j.by}" if j.by else "llm"
            source = said if not both else f"{origin}+{said}" if j.label else origin
            utility = j.score if j.score is not None else float(j.grade) if graded else None
            pairs.append(Pair(j.doc_id, int(j.label or both), source, utility))
        if human_positive == "include":
            shown = {p.doc_id for p in pairs}
            pairs += [Pair(d, 1, origin, None) for d in people if d not in shown]
        if any(p.label for p in pairs):
            ignored = people if human_positive == "exclude" else ()
            examples.append(example_of(query_id, pairs, "llm", ignored))
    return examples


def made(collection: Collection, judged: Judged, **options: object) -> Sequence[Example]:
    context = LabelContext(collection, list(collection.queries), lambda ids: {}, lambda: judged, 0)
    return LLMLabels(**options).stages(context)[0].examples  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["random", "exclude", "include"])
@pytest.mark.parametrize("scored", [True, False])
def test_the_labels_of_an_llm_are_those_of_a_plain_loop(mini: Collection, rule: str, scored: bool):
    judged = judged_of(mini, scored)
    expected = one_at_a_time(mini, judged, rule)
    found = made(mini, judged, human_positive=rule)
    assert list(found) == expected and [found[at] for at in range(len(found))] == expected
    assert (len(expected) < len(judged)) == (rule != "include")
    assert any(e.ignored for e in expected) == (rule == "exclude")
    corrupt = made(mini, judged, human_positive=rule, corrupt=0.5)
    assert list(corrupt) == one_at_a_time(mini, corrupted(judged, 0.5, 0), rule)


def kept(folder: Path, collection: Collection, judged: Mapping[str, Sequence[Judgement]]) -> Judgements:
    rows = {d: row for row, d in enumerate(collection.corpus.ids())}
    told = [Ended(q, 1, [replace(j, by="") for j in js], rows) for q, js in judged.items()]
    conclusions = Conclusions(folder / "x.arrow").add(batches_of(told[:20])).add(batches_of(told[20:])).joined("state")
    return Judgements(collection.corpus, conclusions.add(batches_of(told[:5])), judged)


@pytest.mark.parametrize("scored", [True, False])
def test_conclusions_give_the_labels_of_their_judgements(tmp_path: Path, mini: Collection, scored: bool):
    judged = judged_of(mini, scored)
    concluded = kept(tmp_path, mini, judged)
    assert {q: concluded[q] for q in judged} == {q: [replace(j, by="") for j in js] for q, js in judged.items()}
    assert list(made(mini, concluded)) == one_at_a_time(mini, dict(concluded), "random")


def test_examples_in_columns_have_the_hash_and_the_table_of_those_that_are_not(tmp_path: Path, mini: Collection):
    plain = [*one_at_a_time(mini, judged_of(mini, True), "exclude"), example_of("q", [Pair("p7", 1, "human", 2)], "human")]
    ids = list(mini.corpus.ids())
    plain[-1] = example_of("q", [Pair(ids[7], 1, "human", 2), Pair(ids[8], 0, "llm", None)], "human", (ids[9],), 0.5)
    packed = Examples.of(plain, mini.corpus)
    stages = [[Stage("llm", examples, 1, "average")] for examples in (plain, packed)]
    assert list(packed) == plain and label_hash(stages[0]) == label_hash(stages[1]) == label_hash(stages[1])
    assert stages[0][0].most_positives == stages[1][0].most_positives and stages[1][0].heaviest == 1.0
    for name, of_kind in zip("ab", stages, strict=True):
        write_label_table(tmp_path / f"{name}.parquet", of_kind)
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))


def test_a_part_that_a_killed_run_left_is_read_and_joined(tmp_path: Path, mini: Collection):
    judged = judged_of(mini, True)
    rows = {d: row for row, d in enumerate(mini.corpus.ids())}
    first = Conclusions(tmp_path / "x.arrow").add(batches_of(Ended(q, 1, js, rows) for q, js in list(judged.items())[:7]))
    assert len(first) == 7 and not (tmp_path / "x.arrow").exists() and list(tmp_path.glob("*.part"))
    whole = Conclusions(tmp_path / "x.arrow").add(batches_of(Ended(q, 2, js, rows) for q, js in judged.items())).joined("now")
    assert whole.seen == "now" and len(whole) == len(judged) and not list(tmp_path.glob("*.part"))
    assert {whole.row(q)["pool"] for q in judged} == {2}


def test_of_pools_that_are_kept_again_the_last_count_at_their_first_places(tmp_path: Path, mini: Collection):
    ids, queries = list(mini.corpus.ids()), list(mini.queries)[:4]
    before, after = ({q: ids[at : at + size] for at, q in enumerate(queries)} for size in (3, 5))
    stored = StoredPools(tmp_path)
    assert stored.add(pools_of(mini, before)) == 4 and stored.add(pools_of(mini, {queries[1]: after[queries[1]]})) == 1
    assert stored.add(pools_of(mini, before)) == 1 and stored.add(pools_of(mini, {queries[2]: after[queries[2]]})) == 1
    found = StoredPools(tmp_path).read()
    assert list(found) == queries and [found[q].rows.tolist() for q in queries] == [
        mini.corpus.rows((after if q == queries[2] else before)[q]) for q in queries
    ]
    assert found.hashes.tolist() == [found[q].hash() for q in queries]
    assert list(found.chosen(queries[::-1])) == queries[::-1] and found.chosen(queries) is found
    assert PoolTable.of(dict(found))[queries[3]].rows.tolist() == found[queries[3]].rows.tolist()
    assert list(StoredPools(tmp_path / "none").read()) == []


def test_the_first_copy_of_a_text_is_found_among_lists_of_any_length(tmp_path: Path):
    texts = [[5, 6], [], [6, 5], [5, 6], [5], [], [0, 5], [5, 6, 0]]
    np.concatenate([np.array(t, np.uint16) for t in texts]).tofile(tmp_path / "ids.bin")
    np.save(tmp_path / "ends.npy", np.cumsum([0, *map(len, texts)]))
    write_json(tmp_path / "manifest.json", {"dtype": "uint16", "tokens": sum(map(len, texts))})
    assert Tokens(tmp_path).first_copies.tolist() == [0, 1, 2, 0, 4, 1, 6, 7]
    assert (tmp_path / "first_copies.npy").is_file() and Tokens(tmp_path).first_copies.tolist() == [0, 1, 2, 0, 4, 1, 6, 7]


def test_the_shipped_annotation_has_the_labels_of_a_plain_loop(mini: Collection, tmp_path: Path):
    from uar.collections.reference import MINI

    annotator = Likelihood(template="likelihood_question", threshold=20.0)
    known = Annotations(tmp_path, (MINI / "annotations",)).listed(mini.corpus.hash)
    models = next(about["models"] for about in known if about["annotator"] == annotator.asks())
    annotation = Annotations(tmp_path, (MINI / "annotations",)).choose(Asked(annotator, models, mini), "latest")
    assert annotation is not None
    judged = annotation.concluded().judgements
    assert list(made(mini, judged)) == one_at_a_time(mini, dict(judged), "random")
