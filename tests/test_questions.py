"""Questions for a corpus that has none: written by an LLM, filtered, and gone on with as usual."""

import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import ok, write_jsonl
from hydra import compose, initialize_config_dir
from llm_server import LLMServer, Messages

from uar.collections import open_collection
from uar.errors import UserError
from uar.labels import HumanLabels, LabelContext
from uar.launch.entry import CONF, register_resolvers
from uar.llm.record import Outcome, Reply
from uar.questions.filters import Written, kept_once
from uar.questions.generated import draw
from uar.questions.writer import Asked, check_questions, read_questions
from uar.questions.written_folder import split_by_passage
from uar.retrievers.bm25.terms import terms_of

Command = Callable[..., subprocess.CompletedProcess[str]]
REPLIES = {
    "heart": "1. What does the heart pump through the body?\n2. what does the heart pump through the body?",
    "Bees": "Questions:\n- what do bees make from nectar?\n- what do bees make of nectar?\n",
    "Danube": "",
    "Iron": "I'm sorry, that is beyond me.",
    "violin": "It has four strings.",
    "Snow": "what is snow made of?\nwhat does this passage say of ice?\nhow many strings has a violin?",
}


@pytest.fixture
def corpus(folder: Path) -> Path:
    """The toy folder with nothing but its passages."""
    shutil.rmtree(folder / "qrels")
    (folder / "queries.jsonl").unlink()
    return folder


@pytest.fixture
def writes(command: Command, corpus: Path, server: LLMServer) -> Command:
    """Annotate the toy corpus with a server that writes REPLIES and tells likelihoods."""

    def reply(messages: Messages) -> str:
        passage = messages[-1]["content"]
        return next(text for word, text in REPLIES.items() if word in passage)

    server.answer = reply
    fixed = ["dataset=local", f"dataset.path={corpus}", "questions=generate", "questions.per_passage=3"]
    fixed += ["questions.min_passage_words=3", "questions.round_trip.depth=1", "candidates.depth=4", "hydra.run.dir=run"]
    fixed += ["llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=scripted", "llm.backoff=0.01", "logger=none"]
    return lambda *arguments: command("annotate", *fixed, *arguments)


def told(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def test_questions_are_written_filtered_and_annotated_once(tmp_path: Path, writes: Command, server: LLMServer, corpus: Path):
    estimate = ok(writes("dry_run=true"))
    assert not server.seen and "The questions are not written yet" in estimate
    assert told(tmp_path / "run" / "estimate.json")["stages"]["write_questions"]["calls"] == 6
    assert not (tmp_path / "questions").exists()

    said = ok(writes())
    (place,) = (tmp_path / "questions").iterdir()
    assert place.name.startswith("toy-") and f"dataset.path=questions/{place.name} label_source=llm candidates.depth=4" in said
    assert (place / "corpus.jsonl").is_symlink() and (place / "corpus.jsonl").samefile(corpus / "corpus.jsonl")
    kept = {row["text"]: (row["source"], row["origin"]) for row in told(place / "queries.jsonl")}
    assert kept == {
        "What does the heart pump through the body?": ("d1", "generated"),
        "what do bees make from nectar?": ("d2", "generated"),
        "what is snow made of?": ("d6", "generated"),
    }
    assert {(d["source"], d["why"]) for d in told(place / "dropped.jsonl")} == {
        ("d1", "duplicate"),
        ("d2", "near duplicate"),
        ("d6", "unwanted words"),
        ("d6", "passage not found again"),
    }
    splits = [open_collection(f"local:{place}:{split}") for split in ("train", "dev", "test")]
    assert sorted(t for s in splits for t in (q.text for q in s.queries.values())) == sorted(kept)
    assert all(len(s.queries) == 1 and s.origin == "generated" for s in splits)
    assert {d for s in splits for q in s.queries for d in s.positives(q)} == {"d1", "d2", "d6"}
    manifest = told(place / "manifest.json")
    assert (manifest["written"], manifest["kept"], manifest["splits"]) == (7, 3, {"train": 1, "dev": 1, "test": 1})

    run = tmp_path / "run"
    assert {(f["query_id"], f["outcome"]) for f in told(run / "failures.jsonl")} == {
        ("d3", "empty"),
        ("d4", "refused"),
        ("d5", "unparsable"),
    }
    ledger = told(run / "ledger.json")
    assert ledger["stages"]["write_questions"]["outcomes"] == {"ok": 3, "empty": 1, "refused": 1, "unparsable": 1}
    assert ledger["stages"]["write_questions"]["tokens_in"] == 6 * 7 and ledger["calls"] == len(server.seen)
    assert ledger["questions"]["kept"] == 3 and ledger["questions"]["passages_without_reply"] == 3
    rows = pq.read_table(run / "labels.parquet").to_pylist()
    (train,) = splits[0].queries
    assert {r["query_id"] for r in rows} == {train} and sum(r["label"] for r in rows) == 1
    assert len(rows) == ledger["calls"] - 6  # as many as BM25 finds
    assert told(run / "agreement.json")["judged_by"] == "generated" and "Against people" not in said

    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    said = ok(writes("shard=1/1"))  # a shard is no reason to ask for questions that are there
    again = told(run / "ledger.json")
    assert len(server.seen) == ledger["calls"] and (again["calls"], again["calls_answered_by_store"]) == (0, ledger["calls"])
    assert re.search(rf"calls from the store +│ +{ledger['calls']} │", said)
    assert {p: p.read_bytes() for p in place.rglob("*") if p.is_file()} == before
    assert pq.read_table(run / "labels.parquet").to_pylist() == rows


def test_labels_of_written_questions_say_that_no_person_gave_them(corpus: Path):
    write_jsonl(corpus / "queries.jsonl", [{"_id": "a", "text": "what pumps blood?"}])
    (corpus / "qrels").mkdir()
    (corpus / "qrels" / "train.tsv").write_text("a\td1\t1\n")
    (corpus / "collection.json").write_text('{"origin": "generated"}')
    collection = open_collection(f"local:{corpus}:train")
    context = LabelContext(collection, ["a"], lambda queries: {"a": ["d1", "d2"]}, dict, seed=0)
    (stage,) = HumanLabels().stages(context)
    assert [(p.doc_id, p.label, p.source) for e in stage.examples for p in e.pairs()] == [
        ("d1", 1, "generated"),
        ("d2", 0, "generated"),
    ]


def test_a_lot_of_which_nothing_is_left_is_told_with_the_reasons(writes: Command, tmp_path: Path):
    done = writes("questions.min_words=20")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "of 7 questions written from 6 passages none is kept (7 too short)" in line
    assert not (tmp_path / "questions").exists()


def test_writing_stops_where_too_many_replies_hold_no_question(command: Command, server: LLMServer, tmp_path: Path):
    server.answer = lambda messages: "nothing to ask"
    arguments = ["questions=generate", "questions.passages=60", "llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=m"]
    done = command("annotate", *arguments, "logger=none", "hydra.run.dir=run")
    assert done.returncode == 2 and "unparsable), more than max_failure_rate=0.5" in done.stderr
    assert len(told(tmp_path / "run" / "failures.jsonl")) >= 50


def test_a_passage_whose_call_broke_is_asked_about_again(writes: Command, server: LLMServer, tmp_path: Path):
    server.fault = lambda number, body: "400" if "Bees" in str(body) else None
    ok(writes())
    (failure,) = (f for f in told(tmp_path / "run" / "failures.jsonl") if f["outcome"] == "error")
    before = len(server.seen)
    server.fault = lambda number, body: None
    ok(writes())
    assert failure["query_id"] == "d2" and "Bees" in str(server.seen[before][2])


def test_shards_do_not_write_the_questions_several_times(writes: Command, server: LLMServer):
    done = writes("shard=1/2")
    assert done.returncode == 2 and not server.seen
    assert "error: shard=1/2: the questions are not written yet" in done.stderr


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("passages=0", "questions.passages=0: at least 1"),
        ("max_words=2", "questions.max_words=2 is below questions.min_words=4"),
        ("near_duplicate=0", "questions.near_duplicate=0: a share above 0"),
        ("dev=0.95", "questions.dev=0.95, questions.test=0.1"),
        ("unwanted='('", "is no regular expression"),
        ("min_passage_words=900", "no passage has questions.min_passage_words=900 words"),
        ("writer.template=nowhere", "nowhere: no such prompt"),
        ("answers=any questions=hard", "questions.answers=any: HardWriter writes none"),
        ("answers=in_passage questions=describe", "questions.answers=in_passage: DescriptionWriter writes none"),
    ],
)
def test_options_that_cannot_be_are_refused(option: str, part: str, tmp_path: Path):
    from uar.annotation.annotate_run import open_writing

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("annotate", ["questions=generate", *f"questions.{option}".split(), f"store={tmp_path}"])
    with pytest.raises(Exception) as caught:  # noqa: PT011 Hydra wraps what a constructor raises
        open_writing(cfg, cfg.llm)
    causes = [caught.value, caught.value.__cause__]
    assert any(isinstance(cause, UserError) and part in str(cause) for cause in causes)


def test_a_folder_without_passages_or_questions_is_told(fails: Callable[..., str], corpus: Path, tmp_path: Path):
    line = fails("annotate", "dataset=local", f"dataset.path={corpus}", "logger=none")
    assert f"python -m uar.annotate dataset=local dataset.path={corpus} questions=generate" in line
    (tmp_path / "empty").mkdir()
    told = fails("annotate", "dataset=local", "dataset.path=empty", "questions=generate", "logger=none")
    assert "empty/corpus.jsonl: no such file" in told


def test_a_real_model_writes_questions_that_find_their_passages(tmp_path: Path, command: Command):
    arguments = ["questions=generate", "questions.passages=3", "questions.per_passage=1", "candidates.depth=2", "logger=none"]
    ok(command("annotate", *arguments, "hydra.run.dir=run"))
    ledger = told(tmp_path / "run" / "ledger.json")
    assert ledger["stages"]["write_questions"]["calls"] == 3 and ledger["stages"]["write_questions"]["tokens_in"] > 1_000
    assert 1 <= ledger["questions"]["kept"] <= ledger["questions"]["written"] <= 3
    collection = open_collection(f"local:{tmp_path / ledger['questions']['folder']}:train")
    assert all(q.text.endswith("?") and 4 <= len(q.text.split()) <= 30 for q in collection.queries.values())
    rows = pq.read_table(tmp_path / "run" / "labels.parquet").to_pylist()
    assert {r["query_id"] for r in rows} == set(collection.queries)


@pytest.mark.parametrize(
    ("output", "questions", "outcome"),
    [
        ("who?\nwhat is it?", ["who?", "what is it?"], "ok"),
        ('1) "Who was it?"\n\n* **Question 2: What for?**', ["Who was it?", "What for?"], "ok"),
        ("Q1. how?\nhow?\nThat is all.", ["how?"], "ok"),
        ("<think>what to ask?</think>\nwhere is it?", ["where is it?"], "ok"),
        ("1．蜜蜂做什么？\n2、「心脏有什么用？」\n问题3：谁？", ["蜜蜂做什么？", "心脏有什么用？", "谁？"], "ok"),
        ("١. ماذا يصنع النحل؟", ["ماذا يصنع النحل؟"], "ok"),
        ("", [], "empty"),
        ("Nothing.", [], "unparsable"),
        ("As an AI I have no questions.", [], "refused"),
    ],
)
def test_questions_are_read_from_what_models_write(output: str, questions: list[str], outcome: str):
    assert [one.question for one in read_questions(Reply(output))] == questions
    assert check_questions(Reply(output)) == outcome


def test_a_reply_that_was_cut_counts_for_the_whole_lines():
    assert read_questions(Reply("who was it?\nwhat did the", Outcome.TRUNCATED)) == [Asked("who was it?")]
    cut = Reply("who was it? | Haydn\nwhat is it? | the ve", Outcome.TRUNCATED)
    assert read_questions(cut, answers=True) == [Asked("who was it?", "Haydn"), Asked("what is it?")]
    assert check_questions(Reply("who was it?\nwhat did the", Outcome.TRUNCATED)) == "ok"
    assert check_questions(Reply("what did the the the", Outcome.TRUNCATED)) == "truncated"
    assert check_questions(Reply("who was it?", Outcome.ERROR)) == "error"


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 1.0])
def test_near_duplicates_are_those_that_all_comparisons_find(similarity: float):
    draw_words = random.Random(similarity).choices
    texts = [
        " ".join(draw_words(["ox", "elk", "cod", "bee", "hen", "cow", "ram", "eel"], k=5)) + f" {n % 7}?" for n in range(150)
    ]
    questions = [Written(str(n), text, "d") for n, text in enumerate(texts)]
    kept, dropped = kept_once(questions, similarity, "en")
    expected: list[set[str]] = []
    chosen = []
    for question, stems in zip(questions, map(set, terms_of(texts, "en")), strict=True):
        if not any(len(stems & other) >= similarity * len(stems | other) - 1e-9 for other in expected):
            expected.append(stems)
            chosen.append(question)
    assert kept == chosen and len(kept) + len(dropped) == 150 and len(dropped) > 5


def test_splits_share_no_passage_and_samples_are_nested():
    questions = [Written(f"q{n}", "x?", f"d{n // 2}") for n in range(40)]
    splits = split_by_passage(questions, {"dev": 0.1, "test": 0.25}, seed=3)
    assert {split: len(found) for split, found in splits.items()} == {"train": 26, "dev": 4, "test": 10}
    sources = [{q.source for q in found} for found in splits.values()]
    assert sum(map(len, sources)) == len(set().union(*sources)) == 20
    assert split_by_passage(questions[:4], {"dev": 0.1, "test": 0.1}, 3)["train"] == questions[:4]  # too few to share out
    for shares, sizes in (({"dev": 0.1, "test": 0.0}, [2, 2, 0]), ({"dev": 0.4, "test": 0.55}, [2, 2, 2])):
        few = split_by_passage(questions[: sum(sizes)], shares, 3)  # each split that is wanted has a passage, train too
        assert [len(found) for found in few.values()] == sizes

    corpus = open_collection("mini:train").corpus
    assert draw(corpus, 20, 5, seed=1) == draw(corpus, 50, 5, seed=1)[:20] != draw(corpus, 20, 5, seed=2)
    assert len(set(draw(corpus, None, 5, seed=1))) == len(corpus)
    long = [d for d in draw(corpus, None, 1, seed=1) if len(corpus.text(corpus.row(d)).split()) >= 76]
    assert 5 < len(long) < len(corpus) / 10
    assert draw(corpus, 5, 76, seed=1) == long[:5] and draw(corpus, len(corpus), 76, seed=1) == long
