"""Definitions of questions for graders, and pools that contrast the top of a ranking with the rest of the corpus."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_jsonl
from hydra.utils import instantiate
from scripted import POOL, Scripted, kept, replayed, run

from uar.annotation.annotate_run import annotate
from uar.annotation.annotators import Ensemble, Pointwise
from uar.collections import Collection, Query, open_collection
from uar.errors import DataError, UserError
from uar.launch.entry import composed
from uar.llm.record import Choose, Outcome, Reply, Request
from uar.pools import BM25Pool, ContrastPool, PoolSource

WRITES = Pointwise(template="pointwise", definitions="write", calibration_queries=0)
TEXT = "It asks for a product.\nWhat counts:\n- honey\n- wax [2]"
SHOWN = "Question: what do bees make\nWhat it asks for: It asks for a product. What counts: - honey - wax (2)\n"


def graded(definition: Reply | str) -> Scripted:
    def answer(request: Request) -> Reply | str:
        if not isinstance(request, Choose):
            return definition
        return Reply.of_choices({"0": -2.0, "1": -2.0, "2": -2.0, "3": -0.5})

    return Scripted(answer)


def test_a_definition_is_asked_once_and_stands_below_the_question(tmp_path: Path) -> None:
    engine = graded(TEXT)
    judged, chains = run(tmp_path, WRITES, engine)
    assert [j.label for j in judged["q1"]] == [1] * 4
    first, *grades = engine.asked
    assert "what do bees make" in first.messages[-1][1] and not any(text in str(first) for text in POOL.values())
    assert len(grades) == 4 and all(SHOWN in request.messages[-1][1] for request in grades)
    assert {stage: counts.asked for stage, counts in chains.progress.stages.items()} == {"definition": 1, "pointwise": 4}


def test_another_definition_is_another_call_and_the_same_is_none(tmp_path: Path) -> None:
    plain = Pointwise(template="pointwise", calibration_queries=0)
    run(tmp_path, plain, graded(TEXT))
    run(tmp_path, WRITES, engine := graded(TEXT))
    assert len(engine.asked) == 5
    run(tmp_path, WRITES, again := graded(TEXT))
    assert again.asked == []
    path = tmp_path.with_suffix(".jsonl")
    write_jsonl(path, [{"query_id": "q1", "definition": "Only food."}])
    run(tmp_path, replace(WRITES, definitions=str(path)), edited := graded(TEXT))
    assert len(edited.asked) == 4 and all("\nWhat it asks for: Only food.\n" in str(r.messages[-1][1]) for r in edited.asked)
    assert len(kept(tmp_path, "pointwise")) == 12 and len(kept(tmp_path, "definition")) == 1


def test_annotations_are_told_apart_by_what_definitions_say(tmp_path: Path) -> None:
    plain = Pointwise(template="pointwise")
    assert not any("definition" in name for name in plain.asks())
    one, other, copied = (tmp_path / name for name in ("one.jsonl", "other.jsonl", "copied.jsonl"))
    for path, text in ((one, "Only food."), (other, "Only wax."), (copied, "Only  food.")):
        write_jsonl(path, [{"query_id": "q1", "definition": text}])
    asks = [replace(plain, definitions=value).asks() for value in ("write", *map(str, (one, other, copied)))]
    assert asks[1] == asks[3] and len({json.dumps(a, sort_keys=True) for a in (plain.asks(), *asks)}) == 4


def test_a_question_whose_definition_failed_has_no_labels(tmp_path: Path) -> None:
    engine = graded(Reply("", Outcome.REFUSED))
    judged, chains = run(tmp_path, WRITES, engine, max_failure_rate=1)
    assert judged == {} and chains.failed == ["q1"] and len(engine.asked) == 1
    cut = graded(Reply("It asks for a", Outcome.TRUNCATED))
    run(tmp_path / "cut", WRITES, cut)
    assert "\nWhat it asks for: It asks for a\n" in cut.asked[-1].messages[-1][1]


def test_members_of_an_ensemble_share_the_definition(tmp_path: Path) -> None:
    engines = [graded("The first says."), graded("The second says.")]
    run(tmp_path, Ensemble(member=WRITES, models=2), engines)
    for engine, text in zip(engines, ("The first says.", "The second says."), strict=True):
        assert len(engine.asked) == 5 and all(f"asks for: {text}" in r.messages[-1][1] for r in engine.asked[1:])
    assert Ensemble(member=WRITES, models=2).written().keys() == {"definition"}


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('{"query_id": "q1", "definition": " "}', r"d.jsonl:1: 'definition' is empty; write one"),
        ('{"query_id": "q1", "definition": "a"}\n{"query_id": "q1", "definition": "b"}', "the definition of 'q1'"),
        ('{"query_id": "q1"}', "definition"),
    ],
)
def test_a_faulty_file_of_definitions_is_refused(tmp_path: Path, lines: str, told: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(lines)
    with pytest.raises(DataError, match=told):
        replace(WRITES, definitions=str(path))
    with pytest.raises(DataError, match="annotator.definitions: no such file; give .* or write"):
        replace(WRITES, definitions=str(tmp_path / "none.jsonl"))


def test_a_run_writes_the_definitions_and_reads_them_edited(
    folder: Path, tmp_path: Path, server, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda messages: "Define: " + re.findall(r"Qu(?:estion|ery): (.*)", messages[-1]["content"])[-1]
    server.choose = lambda messages: {"3": -0.1, "0": -3.0, "1": -4.0, "2": -4.0}
    given = ["dataset=local", f"dataset.path={folder}", "annotator=umbrela", "annotator.calibration_queries=0", "logger=none"]
    given += [
        "candidates.depth=2",
        f"store={tmp_path / 'store'}",
        "llm=openai",
        f"llm.base_urls=[{server.url}]",
        "llm.model=x",
    ]
    annotate(composed("annotate", *given, "annotator.definitions=write"), tmp_path / "run")
    path = tmp_path / "run" / "definitions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    texts = {"q1": "what pumps blood", "q2": "what do bees make", "q3": "where does the danube end"}
    assert {row["query_id"]: row["definition"] for row in rows} == {q: f"Define: {text}" for q, text in texts.items()}
    toy = open_collection(f"local:{folder}:train")
    scaled = {"scale": "trec", "calibration_queries": 0}
    writes = Pointwise(template="umbrela", definitions="write", **scaled)  # type: ignore[arg-type]
    assert replayed(tmp_path / "store", writes, ["x"], toy).keys() == texts.keys()
    asked = len(server.seen)
    write_jsonl(path, rows[:2])
    annotate(composed("annotate", *given, f"annotator.definitions={path}"), tmp_path / "again")
    assert len(server.seen) == asked + 1  # the passage of the question that has no definition any more
    assert f"{path} has no definition of 1 questions, which are graded without one" in caplog.text


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


def contrast(depth: int, top: int, outside: int | None = None, seed: int = 0) -> ContrastPool:
    return ContrastPool(depth=depth, source=BM25Pool(3), top=top, outside=outside, include_positive=False, seed=seed)


def test_pools_hold_some_of_the_top_and_some_of_the_rest() -> None:
    mini = open_collection("mini:dev")
    ids = list(mini.queries)
    top = BM25Pool(12, include_positive=False).best(mini, ids)
    drawn: Counter[int] = Counter()
    for seed in range(4):
        source = contrast(8, 12, 3, seed)
        pools = source.pools(mini, ids)
        assert pools == source.pools(mini, ids)
        for q in ids:
            assert len(set(pools[q])) == 8 and len(set(pools[q]) & set(top[q])) == 5
            drawn.update(top[q].index(d) for d in pools[q] if d in top[q])
    assert drawn.keys() == set(range(12))  # not the best alone
    assert len({d for q in ids for d in contrast(8, 12, 3).pools(mini, ids)[q] if d not in top[q]}) > 2 * len(ids)


def test_a_small_corpus_is_contrasted_by_hand(toy: Collection) -> None:
    only: PoolSource = contrast(4, 2, 2)
    found = only.pools(replace(toy, queries={"q": Query("q", "bees snow honey ice")}), ["q"])["q"]
    assert {"d2", "d6"} <= set(found) and len(set(found)) == 4
    every = contrast(8, 4).pools(replace(toy, queries={"q": Query("q", "bees snow")}), ["q"])["q"]
    assert set(every) == {f"d{n}" for n in range(1, 7)}  # two are found, and the rest are fewer than asked for
    joined = replace(only, include_positive=True).pools(toy, ["q1"])["q1"]
    assert "d1" in joined and len(joined) == 4
    made = instantiate(composed("annotate", "candidates=contrast", "candidates.depth=2").candidates)
    assert len(made.pools(toy, ["q1"])["q1"]) == 2


def test_a_contrast_does_not_hang_on_what_else_is_asked_or_left_out() -> None:
    mini = open_collection("mini:train")
    first, second = list(mini.queries)[:2]
    source = replace(contrast(8, 20, 6), include_positive=True)
    crowded = replace(mini, qrels=mini.qrels | {second: dict.fromkeys(list(mini.corpus.ids())[:9], 3)})
    alone = source.pools(crowded, [first])[first]
    assert source.pools(crowded, [first, second])[first] == alone and len(alone) == 8
    assert len(replace(source, top=2).pools(crowded, [second])[second]) == 8  # of which one is no positive
    (own,) = BM25Pool(1, include_positive=False).best(mini, [first])[first]
    queries = {own: replace(mini.queries[first], id=own)}
    left_out = replace(mini, queries=queries, qrels={}, drop_own=True)
    pool = contrast(8, 20, 6).pools(left_out, [own])[own]
    top = BM25Pool(20, include_positive=False).best(left_out, [own])[own]
    assert own not in pool and len(pool) == 8 and len(set(pool) & set(top)) == 2


def test_a_contrast_that_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="candidates.outside=9: from 0 to candidates.depth=8"):
        contrast(8, 20, 9)
    with pytest.raises(UserError, match="candidates.top=3: 4 passages are to be drawn from so many; raise it"):
        contrast(8, 3)
