"""Questions that people judged beside generated ones, and answers that are written with questions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import ok, write_jsonl
from llm_server import LLMServer, Messages
from scripted import Scripted

from uar.annotation.judgement import Judgement
from uar.collections import open_collection
from uar.labels import HumanLabels, LabelContext, MixedLabels
from uar.llm.call import Question
from uar.llm.chains import Chains
from uar.llm.models import LLM
from uar.llm.record import Outcome, Reply
from uar.llm.replies import ended
from uar.llm.store.store import Store
from uar.questions.filters import Written, with_answers_of_passages
from uar.questions.writer import Asked, QuestionWriter, read_questions
from uar.questions.written_folder import write_collection

PNG = b"\x89PNG\r\n\x1a\n of a bee"
Command = Callable[..., Any]
REPLIES = {
    "heart": "what does the heart pump through the body? | blood\nwho found the heart first? | Harvey",
    "Bees": "what do bees make from nectar? | Honey.",
    "Iron": "why does iron rust in wet air? | water and oxygen",
}


def told(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


@pytest.fixture
def judged(folder: Path) -> Path:
    """The toy folder with two questions of people: one of `train`, one of `test`."""
    shutil.rmtree(folder / "qrels")
    (folder / "qrels").mkdir()
    questions = [
        {"_id": "p1", "text": "what do bees make of nectar?", "answers": ["honey"]},
        {"_id": "p2", "text": "what rusts?"},
    ]
    write_jsonl(folder / "queries.jsonl", [*questions, {"_id": "p3", "text": "is the heart red?"}])
    (folder / "qrels" / "train.tsv").write_text("p1\td2\t2\np1\td1\t0\n")
    (folder / "qrels" / "test.tsv").write_text("p2\td4\t2\n")
    (folder / "candidates").mkdir(exist_ok=True)
    write_jsonl(folder / "candidates" / "train.jsonl", [{"query_id": "p3", "candidates": []}])
    (folder / "collection.json").write_text('{"positive_grade": 2}')
    return folder


@pytest.fixture
def writes(command: Command, judged: Path, server: LLMServer) -> Command:
    def reply(messages: Messages) -> str:
        return next((text for word, text in REPLIES.items() if word in messages[-1]["content"]), "")

    server.answer = reply
    fixed = ["dataset=local", f"dataset.path={judged}", "questions=generate", "questions.min_passage_words=3", "logger=none"]
    fixed += ["questions.round_trip=null", "candidates.depth=3", "hydra.run.dir=run", "llm=openai", "llm.model=scripted"]
    fixed += [f"llm.base_urls=[{server.url}]", "llm.backoff=0.01"]
    return lambda *arguments: command("annotate", *fixed, *arguments)


def test_generated_questions_stand_beside_those_of_people(writes: Command, tmp_path: Path) -> None:
    said = ok(writes("questions.dev=0"))
    (place,) = (tmp_path / "questions").iterdir()
    rows = {row["_id"]: row for row in told(place / "queries.jsonl")}
    assert [rows[q]["origin"] for q in ("p1", "p2", "p3")] == ["human"] * 3 and rows["p1"]["answers"] == ["honey"]
    generated = {row["text"]: row.get("answers") for row in rows.values() if row["origin"] == "generated"}
    assert generated == {
        "what does the heart pump through the body?": ["blood"],
        "who found the heart first?": None,  # its answer does not stand in the passage
        "why does iron rust in wet air?": generated["why does iron rust in wet air?"],
    }
    assert {d["text"]: d["why"] for d in told(place / "dropped.jsonl")} == {"what do bees make from nectar?": "near duplicate"}

    train, test = (open_collection(f"local:{place}:{split}") for split in ("train", "test"))
    assert list(test.queries) == ["p2"] and (place / "qrels" / "generated_test.tsv").is_file()
    assert {"p1", "p3"} < set(train.queries) and train.qrels["p1"] == {"d2": 2, "d1": 0}
    assert all(train.positives(q) for q in train.queries if q != "p3") and train.positive_grade == 2
    assert "The split test is that of people alone" in said and "of which people judged 1" in said
    agreement = told(tmp_path / "run" / "agreement.json")
    assert (agreement["judged_by"], agreement["queries"]) == ("human", 1)
    ledger = told(tmp_path / "run" / "ledger.json")
    assert ledger["questions"]["with_answer"] == sum(answers is not None for answers in generated.values())
    assert {r["query_id"] for r in pq.read_table(tmp_path / "run" / "labels.parquet").to_pylist()} == set(train.queries)


def test_what_the_dataset_says_of_peoples_questions_holds_beside_generated_ones(
    writes: Command, tmp_path: Path, judged: Path
) -> None:
    (judged / "collection.json").unlink()
    (judged / "qrels" / "train.tsv").write_text("p1\td2\t2\np1\td1\t1\n")
    write_jsonl(tmp_path / "answers.jsonl", [{"query_id": "p1", "answers": ["sweet honey"]}])
    ok(writes("dataset.positive_grade=2", "dataset.answers=answers.jsonl"))
    (place,) = (tmp_path / "questions").iterdir()
    train = open_collection(f"local:{place}:train")
    assert train.positives("p1") == ["d2"] and train.queries["p1"].answers == ("sweet honey",)
    assert all(train.positives(q) for q in train.queries if q != "p3")


def test_images_of_peoples_questions_come_with_them(judged: Path, tmp_path: Path) -> None:
    rows = told(judged / "queries.jsonl")
    (judged / "pictures").mkdir()
    (judged / "pictures" / "bee.png").write_bytes(PNG)
    images = [{"image": "pictures/bee.png"}, {"image": "https://example.org/rust.png"}, {}]
    write_jsonl(judged / "queries.jsonl", [row | image for row, image in zip(rows, images, strict=True)])
    own = {split: open_collection(f"local:{judged}:{split}") for split in ("train", "test")}
    for _ in range(2):  # it may be written again
        write_collection(tmp_path / "written", own["train"].corpus, None, {}, [], own, {})
    train, test = (open_collection(f"local:{tmp_path / 'written'}:{split}") for split in own)
    first, second = train.queries["p1"].image, test.queries["p2"].image
    assert first and first.fault() is None and first.key == own["train"].queries["p1"].image.key
    assert second and second.url() == "https://example.org/rust.png" and train.queries["p3"].image is None


def test_a_folders_own_questions_can_stay_away(writes: Command, tmp_path: Path) -> None:
    said = ok(writes("questions.own=false", "questions.answers=any", "questions.test=0"))
    (place,) = (tmp_path / "questions").iterdir()
    assert not (place / "qrels" / "test.tsv").exists() and f"dataset.path=questions/{place.name} 'dataset.test=[]'" in said
    rows = told(place / "queries.jsonl")
    assert {row["origin"] for row in rows} == {"generated"}
    assert {tuple(row["answers"]) for row in rows} == {("blood",), ("Harvey",), ("Honey.",), ("water and oxygen",)}


def test_more_questions_of_a_folder_of_generated_ones_have_ids_of_their_own(
    writes: Command, tmp_path: Path, server: LLMServer
) -> None:
    ok(writes("questions.dev=0", "questions.test=0"))
    (place,) = (tmp_path / "questions").iterdir()
    more = {"heart": "how many beats come in one minute?", "Bees": "what do bees visit?", "Iron": "what turns brown outside?"}
    server.answer = lambda messages: next((text for word, text in more.items() if word in messages[-1]["content"]), "")
    again = [f"dataset.path={place}", "questions.folder=again", "store=other", "questions.dev=0", "questions.test=0"]
    assert "3 questions of 3 written" in ok(writes(*again))
    (place,) = (tmp_path / "again").iterdir()
    texts = {row["_id"]: row["text"] for row in told(place / "queries.jsonl")}
    assert [texts[q] for q in ("d1-q1", "d1-q2", "d1-q3", "d2-q1", "d4-q1", "d4-q2")] == [
        "what does the heart pump through the body?", "who found the heart first?", more["heart"], more["Bees"],
        "why does iron rust in wet air?", more["Iron"],
    ]  # fmt: skip
    train = open_collection(f"local:{place}:train")
    assert [train.positives(q) for q in ("d1-q1", "d1-q3", "d2-q1", "d4-q2")] == [["d1"], ["d1"], ["d2"], ["d4"]]


def test_questions_of_a_folder_without_splits_are_taken(writes: Command, tmp_path: Path, judged: Path) -> None:
    shutil.rmtree(judged / "qrels")
    shutil.rmtree(judged / "candidates")
    said = ok(writes())
    (place,) = (tmp_path / "questions").iterdir()
    train = open_collection(f"local:{place}:train")
    assert [train.queries[q].answers for q in ("p1", "p2", "p3")] == [("honey",), (), ()]
    assert not {"p1", "p2", "p3"} & train.qrels.keys()
    assert "Beside them: 3 questions of" in said and "of which people judged 0" in said
    assert {"p1", "p2", "p3"} < {r["query_id"] for r in pq.read_table(tmp_path / "run" / "labels.parquet").to_pylist()}


def test_every_split_of_the_folder_is_kept_and_questions_of_none_are_counted(
    writes: Command, tmp_path: Path, judged: Path
) -> None:
    (judged / "qrels" / "train.tsv").rename(judged / "qrels" / "validation.tsv")
    shutil.rmtree(judged / "candidates")
    said = ok(writes("dry_run=true"))  # before anything is asked
    assert "1 questions of" in said and "are in no split" in said and "candidates/train.jsonl" in said
    ok(writes())
    (place,) = (tmp_path / "questions").iterdir()
    assert open_collection(f"local:{place}:validation").qrels == {"p1": {"d2": 2, "d1": 0}}
    assert "p3" not in {row["_id"] for row in told(place / "queries.jsonl")}


def test_candidates_images_and_who_judged_go_along(judged: Path, tmp_path: Path) -> None:
    (judged / "pictures").mkdir()
    (judged / "pictures" / "bee.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows = [{"_id": "p1", "text": "what is this?", "image": "pictures/bee.png"}, {"_id": "p3", "text": "is it red?"}]
    write_jsonl(judged / "queries.jsonl", rows)
    write_jsonl(judged / "candidates" / "train.jsonl", [{"query_id": q, "candidates": ["d3", "d2"]} for q in ("p1", "p3")])
    settings = {"origin": "generated", "positive_grade": 2, "graded": False, "drop_own": True}
    (judged / "collection.json").write_text(json.dumps(settings))
    own = open_collection(f"local:{judged}:train")
    write_collection(tmp_path / "out", own.corpus, None, {"train": []}, [], {"train": own}, {})
    made = open_collection(f"local:{tmp_path / 'out'}:train")
    assert made.candidates == {"p1": ["d3", "d2"], "p3": ["d3", "d2"]} and made.qrels == own.qrels
    assert made.queries["p1"].image is not None and made.queries["p1"].image.key == own.queries["p1"].image.key
    assert [q.origin for q in made.queries.values()] == ["generated"] * 2
    assert {name: getattr(made, name) for name in settings} == settings and made.gains() == own.gains()


def mixed_folder(folder: Path) -> Path:
    texts = {"a": "human", "b": "generated", "c": "generated", "d": None}
    rows = [{"_id": q, "text": f"what is {q}?", **({"origin": o} if o else {})} for q, o in texts.items()]
    write_jsonl(folder / "queries.jsonl", rows)
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "train.tsv").write_text("".join(f"{q}\td1\t1\n" for q in texts))
    (folder / "collection.json").write_text('{"origin": "generated"}')
    return folder


def context(folder: Path) -> LabelContext:
    collection = open_collection(f"local:{mixed_folder(folder)}:train")
    found = {q: [Judgement("d2", 1, 1, 0.5, 1), Judgement("d1", 0, 0, 0.1, 2)] for q in collection.queries}
    pools = {q: ["d1", "d2"] for q in collection.queries}
    return LabelContext(collection, list(pools), lambda queries: pools, lambda: found, seed=0)


def test_human_labels_are_those_of_the_questions_that_people_judged(folder: Path) -> None:
    (stage,) = HumanLabels().stages(context(folder))
    assert [(e.query_id, e.source) for e in stage.examples] == [("a", "human")]
    first, second = MixedLabels(human_frac=1.0).stages(context(folder))
    assert [len(first.examples), [e.query_id for e in second.examples]] == [4, ["a"]]
    (whole,) = MixedLabels(human_frac=1.0, strategy="union").stages(context(folder))
    sources = {(e.query_id, p.doc_id): p.source for e in whole.examples for p in e.pairs() if p.label}
    assert sources["a", "d1"] == "human" and ("b", "d1") not in sources


def test_a_mix_without_human_labels_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    mixed = context(folder)
    mixed.collection.qrels.clear()
    assert [stage.name for stage in MixedLabels().stages(mixed)] == ["llm"]
    assert "gives no question a human label" in caplog.text


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("who was it? | Haydn", [("who was it?", "Haydn")]),
        ("1. Who was it? Haydn\n2. what for?", [("Who was it?", "Haydn"), ("what for?", "")]),
        ("**Q: how?** -> **by hand**", [("how?", "by hand")]),
        ("Q: how?\nA: by hand\nQ: why?\nAnswer 2: so", [("how?", "by hand"), ("why?", "so")]),
        ("蜜蜂做什么？| 蜂蜜", [("蜜蜂做什么？", "蜂蜜")]),
        ("why? because of this and that and of much else that was said here before", []),
        ("| no question", []),
    ],
)
def test_answers_are_read_from_what_models_write(output: str, found: list[tuple[str, str]]) -> None:
    assert [(one.question, one.answer) for one in read_questions(Reply(output), answers=True)] == found


def test_answers_stand_in_their_passage_as_whole_words() -> None:
    questions = [Written(str(n), "?", "d", answer) for n, answer in enumerate(("The Cat", "at", "dog", "", "sat, on"))]
    assert [q.answer for q in with_answers_of_passages(questions, {"d": "A cat sat on."})] == [
        "The Cat",
        "",
        "",
        "",
        "sat, on",
    ]


@pytest.mark.parametrize(("answers", "notes"), [(True, {"questions_without_answer": 1}), (False, None)])
def test_failures_to_answer_are_counted(answers: bool, notes: dict[str, int] | None) -> None:
    writer = QuestionWriter(template="write_questions", number=2, answers=answers)
    chain = writer.chain(Question("d", "", {"d": "Bees make honey."}))
    (call,) = next(chain)
    assert (" | " in str(call.request)) == answers and call.request.max_tokens == 2 * (48 if answers else 32)
    reply = Reply("what do bees make? | honey\nwho are they?" if answers else "what do bees make?\nwho are they?")
    assert (call.notes(reply) if call.notes else None) == notes
    with pytest.raises(StopIteration) as ended:
        chain.send([reply])
    assert ended.value.value == [Asked("what do bees make?", "honey" if answers else ""), Asked("who are they?")]


BEES, LONG = "what do bees make? | honey\n", "and they make it of nectar of flowers "
HIVES = "where do they live? | hives"


@pytest.mark.parametrize(
    ("answers", "text", "wanted", "asked"),
    [
        (True, f"{BEES}{HIVES}\nwho are they? | bees\nwho", f"{BEES}{HIVES}\n", ["honey", "hives"]),
        (True, f"{BEES}{BEES}{BEES}{HIVES}\nand so on", f"{BEES * 3}{HIVES}\n", ["honey", "hives"]),
        (True, f"Questions:\n\n{BEES}\n2. {HIVES}\nwho", f"Questions:\n\n{BEES}\n2. {HIVES}\n", ["honey", "hives"]),
        (True, f"what?\nAnswer: wax\nwhy?\nAnswer: {HIVES}", f"what?\nAnswer: wax\nwhy?\nAnswer: {HIVES}", ["wax", ""]),
        (True, f"what? | {LONG * 9}\n{HIVES}\n", f"what? | {(LONG * 9)[:94]}", [""]),
        (True, f"{BEES}why? | {LONG * 9}", f"{BEES}why? | {(LONG * 9)[:94]}", ["honey", ""]),
        (True, f"{BEES}where do they li", f"{BEES}where do they li", ["honey"]),
        (False, "what?\nwhat?\n- who? \nwhere?\n", "what?\nwhat?\n- who? \n", ["", ""]),
        (False, "what? who knows\nwhat?\nwho?", "what? who knows\nwhat?\nwho?", ["", ""]),
    ],
)
def test_a_reply_ends_with_the_last_question_or_where_an_answer_runs_on(
    answers: bool, text: str, wanted: str, asked: list[str]
) -> None:
    writer = QuestionWriter(template="write_questions", number=2, answers=answers)
    until = next(writer.chain(Question("d", "", {"d": "Bees make honey."})))[0].request.until
    written = next((text[:end] for end in range(len(text)) if ended(text[:end], until)), text)
    assert written == wanted

    def read(reply: Reply) -> list[Asked]:
        chain = writer.chain(Question("d", "", {"d": "Bees make honey."}))
        next(chain)
        with pytest.raises(StopIteration) as result:
            chain.send([reply])
        return result.value.value

    found = read(Reply(text, Outcome.TRUNCATED))
    assert [one.answer for one in found] == asked
    if written != text:  # ended early, as it was written and as it is kept
        assert read(Reply(written, ended(written, until) or Outcome.OK)) == read(Reply(written)) == found


def test_an_answer_that_was_cut_off_is_none_in_the_store_too(tmp_path: Path) -> None:
    writer = QuestionWriter(template="write_questions", number=2, answers=True)
    text = "what do bees make? | honey\nwho found the heart? | Will"
    for _ in range(2):
        store = Store(tmp_path)
        engine = Scripted(lambda request: Reply(text, Outcome.TRUNCATED, 9, request.limit))  # type: ignore[union-attr]
        chains = Chains(writer, store, "toy", [LLM("m", engine)])
        found = dict(chains.run([Question("d1", "", {"d1": "Bees make honey."})]))
        store.close()
        assert found == {"d1": [Asked("what do bees make?", "honey"), Asked("who found the heart?")]}
        assert chains.progress.total.notes["questions_without_answer"] == 1
