"""Rounds of choosing, labelling, training and scoring."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from hydra import initialize_config_dir
from llm_server import LLMServer
from omegaconf import DictConfig

from uar.collections import open_collection
from uar.errors import DataError, UserError
from uar.launch.entry import CONF, composed
from uar.loops import loop_run
from uar.loops.curves import area, areas, compared, read_rounds
from uar.loops.loop_run import loop
from uar.pools import BM25Pool
from uar.reviewing.round_review import ask_people
from uar.storage.judgement_files import read_judgements

SMALL = ["logger=none", "limit=24", "training.batch_size=4", "training.dev_queries=4", "dataset.test=[mini:test]"]


@pytest.fixture
def options(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DictConfig]:
    """The config of a loop over 24 questions with a retriever of random weights, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: composed("loop", *SMALL, *tiny, "rounds=2", "per_round=5", "acquire=random", *overrides)


def rounds(folder: str) -> list[dict]:
    return json.loads(Path(folder, "rounds.json").read_text())["rounds"]


def people(folder: str) -> set[str]:
    """The questions that were trained on with labels of people."""
    return set(pq.read_table(Path(folder, "labels.parquet"))["query_id"].to_pylist())


def test_the_area_under_a_curve_is_its_mean_height() -> None:
    assert area([10, 20, 40], [0.0, 1.0, 1.0]) == pytest.approx((0.5 * 10 + 1.0 * 20) / 30)
    assert area([7], [0.4]) == 0.4
    of = [{"questions": 10 * n, "scores": {"a": {"AP": 0.1 * n}}} for n in (1, 2, 3)]
    assert areas(of) == {"a": {"AP": pytest.approx(0.2)}}


def test_a_loop_reveals_what_it_asks_for_goes_on_where_it_was_killed_and_is_compared(
    options: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = loop(options(), Path("whole"))
    made = rounds("whole")
    assert [r["questions"] for r in made] == [5, 10] and made[-1]["decides"] == whole
    first, second = (json.loads(Path(f"whole/round-{n}/chosen.json").read_text()) for n in (1, 2))
    assert second[:5] == first and len(set(second)) == 10
    assert people("whole/round-1") < people("whole/round-2") < set(second), "where no positive is in the pool, none is learnt"
    assert made[0]["labels"] == 5 * 8 and made[0]["cost"] == pytest.approx(0.09 * 40), "the pools that people are shown"
    mini, judged = open_collection("mini:train"), read_judgements(Path("whole/round-1")).table.to_pylist()
    found = BM25Pool(depth=8, include_positive=False).pools(mini, first)
    assert {(r["query_id"], r["doc_id"]) for r in judged} == {(q, d) for q, pool in found.items() for d in pool}
    assert len(judged) == 40 and all(row["grade"] == mini.qrels[row["query_id"]].get(row["doc_id"], 0) for row in judged)
    revealed = {(row["query_id"], row["doc_id"]) for row in judged}
    trained = pq.read_table("whole/round-1/labels.parquet").to_pylist()
    assert {(row["query_id"], row["doc_id"]) for row in trained if row["label"]} <= revealed, "and nothing else"
    assert json.loads(Path("whole/curve.json").read_text())["area"] == areas(made)

    def killed(cfg: DictConfig, folder: Path) -> None:
        raise KeyboardInterrupt

    shutil.copytree("whole/round-1", "killed/round-1")
    first = json.loads(Path("whole/rounds.json").read_text())
    Path("killed/rounds.json").write_text(json.dumps({**first, "rounds": made[:1]}))
    with monkeypatch.context() as patched:
        patched.setattr(loop_run, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            loop(options(), Path("killed"))
    assert len(rounds("killed")) == 1 and Path("killed/round-2/chosen.json").is_file()
    loop(options("baseline=whole"), Path("killed"))
    assert rounds("killed") == made
    against = json.loads(Path("killed/curve.json").read_text())["against"]["mini.test"]["nDCG@10"]
    assert against["difference"] == 0 and against["queries"] > 30
    with pytest.raises(UserError, match="its rounds were made with other options"):
        loop(options("seed=1"), Path("killed"))
    assert loop(options("stop.questions=10", "rounds=9"), Path("killed")) == whole  # nothing is made
    Path("killed/rounds.json").write_text(json.dumps({"rounds": [{**made[0], "questions": 6}]}))
    with pytest.raises(UserError, match="its first round has . questions, this one .; give per_round alike"):
        compared(Path("whole"), Path("killed"))


def test_what_people_are_yet_to_say_does_not_choose_their_questions(options: Callable[..., DictConfig]) -> None:
    mini = open_collection("mini:train")
    query_ids = mini.head(24)
    others = [mini.qrels[q] for q in query_ids[1:] + query_ids[:1]]  # of another question each
    moved = replace(mini, qrels=dict(zip(query_ids, others, strict=True)))
    chosen = [
        loop_run._choose(options("acquire=model_margin"), Path(name, "round-1"), of, query_ids, [])
        for name, of in (("as it is", mini), ("moved", moved))
    ]
    assert chosen[0] == chosen[1] and len(chosen[0]) == 5


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("stop.patience=0", "stop.patience=0: at least 1 round is needed"),
        ("baseline=other", "its first round has . questions, this one .; give per_round alike"),
    ],
)
def test_a_loop_that_cannot_end_well_is_not_begun(options: Callable[..., DictConfig], option: str, told: str) -> None:
    Path("other").mkdir()
    Path("other/rounds.json").write_text('{"rounds": [{"questions": 3}]}')
    with pytest.raises(UserError, match=told):
        loop(options(option), Path("run"))
    assert not Path("run").exists()


def test_an_llm_is_asked_for_the_chosen_questions_alone(options: Callable[..., DictConfig], server: LLMServer) -> None:
    server.answer = lambda body: "My selection:[[1],[2]]"
    asking = ["annotator=relsel", "llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=m", "+ask.price.output=1000000"]
    given = ["who=llm", "label_source=llm", "per_round=4", "dataset.test=[]", "stop.cost=80", "annotator.selection_tokens=20"]
    cfg = options(*given, *asking)
    with initialize_config_dir(str(CONF), version_base="1.3"):  # as within a command
        loop(cfg, Path("run"))
    made = rounds("run")
    assert [r["cost"] for r in made] == [12, 24] and len(server.seen) == 8  # a reply has 3 tokens, and none is asked twice
    assert made[1]["labels"] == 2 * made[0]["labels"] and json.loads(Path("run/curve.json").read_text())["area"] == {}
    assert people("run/round-2") == set(json.loads(Path("run/round-2/chosen.json").read_text()))
    with pytest.raises(UserError, match="no options of annotate.py"):
        loop(options(*given, *asking, "+ask.prices=1"), Path("odd"))
    with pytest.raises(UserError, match="price.limit=20 USD: 3 are spent"):
        loop(options(*given, *asking, "stop.cost=20", "seed=1"), Path("dear"))
    with pytest.raises(UserError, match="price.limit=17 USD: 0 are spent"):  # what was spent before counts
        loop(options(*given, *asking, "stop.cost=20", "seed=1"), Path("dear"))


def label_by_people(url: str, judged: list[str]) -> None:
    """What the page does for somebody who knows the judgements of mini and skips the first question, until the page is gone
    twice."""
    mini = open_collection("mini:train")

    def post(path: str, **asked: object) -> dict:
        return httpx.post(url + path, json={"who": "ann", **asked}, headers={"Origin": url}, timeout=30).json()

    for _ in range(4_000):
        try:
            found = post("/next")
            if found["item"] is None:
                time.sleep(0.05)
                continue
            item, query_id = found["item"], found["query_id"]
            state = "skipped" if item == 0 else "done"
            grades = [(p["place"], int(p["doc_id"] in mini.positives(query_id))) for p in found["passages"]]
            labels = [{"id": f"event-{item}-{n}", "kind": "label", "item": item, "place": n, "grade": g} for n, g in grades]
            turn = {"id": f"event-{item}-turn", "kind": "turn", "item": item, "state": state}
            post("/save", events=[*(labels if item else []), turn])
            judged.append(query_id)
        except httpx.HTTPError:
            time.sleep(0.05)
        if len(judged) == 6:
            return


def test_people_judge_the_questions_of_a_round_on_the_page_and_the_loop_goes_on(
    options: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = ["who=human", "per_round=3", "dataset.dev=null", "+review.grades=binary", f"+review.port={port}"]
    judged: list[str] = []
    person = threading.Thread(target=label_by_people, args=(f"http://127.0.0.1:{port}", judged), daemon=True)
    person.start()

    def killed(cfg: DictConfig, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop_run, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            loop(options(*given), Path("run"), ask_people)
    assert len(judged) == 3
    cfg = options(*given)
    with initialize_config_dir(str(CONF), version_base="1.3"):  # as within a command
        loop(cfg, Path("run"), ask_people)
    person.join(timeout=60)
    made = rounds("run")
    assert [r["questions"] for r in made] == [3, 6] and len(judged) == 6, "nobody is asked twice"
    assert people("run/round-1") == set(judged[1:3]) and people("run/round-2") == set(judged[1:])
    counts = [len(read_judgements(Path("run", f"round-{n}")).table) for n in (1, 2)]
    assert [r["labels"] for r in made] == counts and made[1]["cost"] == pytest.approx(0.09 * counts[1])
    with pytest.raises(UserError, match="no options of uar.review"):
        loop(options(*given, "+review.colour=red"), Path("odd"), ask_people)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"rounds": 2}, "rounds=2 are done"),
        ({"target": 0.3}, "what decides is 0.3"),
        ({"questions": 20}, "20 questions are labelled"),
        ({"patience": 1, "gain": 0.2}, "1 rounds without a gain of 0.2 over 0.2000"),
        ({"left": 0}, "all questions are labelled"),
        ({"cost": 2.0}, "2 are spent (stop.cost=2)"),
        ({"patience": 2}, ""),
    ],
)
def test_a_loop_stops_for_a_reason(given: dict, why: str) -> None:
    done = [{"questions": 10, "decides": 0.2, "cost": 1.0}, {"questions": 20, "decides": 0.3, "cost": 2.0}]
    stop = {"patience": None, "gain": 0.001, "target": None, "questions": None, "cost": None}
    cfg = DictConfig({"rounds": given.get("rounds", 5), "stop": {n: given.get(n, value) for n, value in stop.items()}})
    told = loop_run._stops(cfg, done, given.get("left", 3))
    assert told.startswith(why) and bool(told) == bool(why)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["who=human"], "who=human: loop\\(\\) from Python needs ask_people"),
        (["who=human", "dataset.judgements=gone"], "dataset.judgements= is what people say in the rounds"),
        (["who=robot"], "allowed: simulated, llm, human"),
        (["who=llm"], "give label_source=llm"),
        (["label_source=llm"], "give label_source=human or mixed"),
        (["per_round=0"], "per_round=0: at least 1"),
        (["choose_with=next"], "allowed: last, given"),
        (["trainer.devices=2"], "trainer.devices=1"),
        (["baseline=gone"], "baseline=gone: no rounds.json in it"),
        (["stop.cost=0.1"], "no round was made: 0 are spent, and the next round would make it"),
        (["acquire=listed", "acquire.path=none.jsonl"], "none.jsonl: no such file"),
    ],
)
def test_what_cannot_work_is_told(options: Callable[..., DictConfig], overrides: list[str], told: str) -> None:
    with pytest.raises((UserError, DataError), match=told):
        loop(options(*overrides), Path("run"))
    with pytest.raises(UserError):
        read_rounds(Path("run"))
