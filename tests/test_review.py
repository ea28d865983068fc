"""The review command: from a run, an annotation or a collection to a page, and from the page to files that others read."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from commands import start_command
from omegaconf import DictConfig

from uar.annotation.annotate_run import annotate
from uar.collections import open_collection, open_training_split
from uar.errors import DataError, UserError
from uar.evaluate import evaluate
from uar.launch.entry import composed
from uar.reviewing.labelling import Labelling
from uar.reviewing.review_files import write_files
from uar.reviewing.review_run import open_review, review
from uar.reviewing.serving import address, listening
from uar.storage.files import read_json, write_json
from uar.storage.runs import read_run


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DictConfig]:
    """The config of a review of four questions of mini, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: composed("review", "limit=4", "grades=binary", "port=0", *overrides)


def judge(of: Labelling, who: str, right: Callable[[str, str], int]) -> int:
    """Judge all questions as `right` says; their number."""
    number = 0
    while (found := of.next(who))["item"] is not None:
        passages = [(p["place"], right(found["query_id"], p["doc_id"])) for p in found["passages"]]
        shared = {"item": found["item"], "shown": any(p["suggestion"] for p in found["passages"])}
        events = [
            {"id": f"event-{who}-{found['item']}-{n}", "kind": "label", "place": n, "grade": g, **shared} for n, g in passages
        ]
        of.save(who, [*events, {"id": f"event-{who}-{found['item']}-done", "kind": "turn", "state": "done", **shared}])
        number += 1
    return number


def by_people(query_id: str, doc_id: str) -> int:
    return int(doc_id in open_collection("mini:train").positives(query_id))


@pytest.mark.parametrize(
    ("file", "old", "new"), [("corpus.jsonl", "honey", "wax"), ("queries.jsonl", "what do bees", "where do bees")]
)
def test_a_run_of_other_texts_than_those_of_today_is_not_reviewed(
    file: str, old: str, new: str, options: Callable[..., DictConfig], folder: Path
) -> None:
    Path("labels.tsv").write_text("q2\td2\t1\n")
    given = ["dataset=local", f"dataset.path={folder}", "annotator=import", "annotator.path=labels.tsv", "logger=none"]
    annotate(composed("annotate", *given), Path("run"))
    qrels = folder / "qrels" / "train.tsv"
    qrels.write_text(qrels.read_text() + "q2\td4\t1\n")  # what people say meanwhile is no other text
    assert open_review(options("run=run", "acquire=first"), Path("r")).database.count("select count(*) from items") == 1
    path = folder / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match="run=run: questions or passages of .* have other texts today than those that it labe"):
        open_review(options("run=run", "acquire=first"), Path("s"))


@pytest.mark.parametrize(
    ("file", "old", "new"), [("corpus.jsonl", "honey", "wax"), ("queries.jsonl", "what do bees", "where do bees")]
)
def test_rankings_of_other_texts_than_those_of_today_are_not_reviewed(
    file: str,
    old: str,
    new: str,
    options: Callable[..., DictConfig],
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = ["retriever=bm25", "retrieval_depth=2", "measures=[P@1]", "logger=none", f"collections=[local:{folder}:train]"]
    evaluate(composed("evaluate", *given), Path("run"))
    qrels = folder / "qrels" / "train.tsv"
    qrels.write_text(qrels.read_text() + "q2\td4\t1\n")  # what people say meanwhile is no other text
    assert open_review(options("run=run"), Path("r")).database.count("select count(*) from items")
    path = folder / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match="run=run: questions or passages of .* have other texts today than those that it rank"):
        open_review(options("run=run"), Path("s"))
    assert not caplog.text.count("has changed since")
    manifest = read_json(Path("run/manifest.json"))
    write_json(Path("run/manifest.json"), {name: fact for name, fact in manifest.items() if name != "wordings"})
    open_review(options("run=run"), Path("t"))  # an earlier version's run does not say which it is
    assert caplog.text.count("has changed since, its judgements or texts; evaluate again") == 1


def test_a_run_is_reviewed_and_its_labels_train(options: Callable[..., DictConfig], tmp_path: Path) -> None:
    mini = open_collection("mini:train")
    asked = mini.head(6)
    Path("labels.tsv").write_text("".join(f"{q}\t{d}\t{int(n == 0)}\n" for q in asked for n, d in enumerate(mini.qrels[q])))
    annotate(composed("annotate", "annotator=import", "annotator.path=labels.tsv", "logger=none"), Path("run"))
    cfg = options("run=run", "suggestion=shown", "acquire=first")
    work = open_review(cfg, Path("r"))
    assert [row["query_id"] for row in work.database.rows("select query_id from items")] == asked[:4]
    passage = next(p for p in work.next("ann")["passages"] if p["doc_id"] == next(iter(mini.qrels[asked[0]])))
    assert passage["suggestion"] == {"label": 1, "grade": None}, "its scale is another"
    assert judge(work, "ann", by_people) == 4
    number = write_files(work, Path("r"))
    assert number == sum(len(mini.qrels[q]) for q in asked[:4])
    with pytest.raises(UserError, match="dataset.assisted=true"):
        open_training_split("mini:train", None, judgements="r")
    own = open_training_split("mini:train", None, judgements="r", assisted=True)
    assert {q: own.positives(q) for q in own.qrels} == {q: mini.positives(q) for q in asked[:4]} and own.assisted == number
    assert pq.read_table("r/labels.parquet")["assisted"].to_pylist() == [True] * number
    assert Path("r/labels.qrels").read_text() == "", "qrels are taken for people's own"
    work.database.close()
    more = open_review(options(f"run={tmp_path}/./run/", "suggestion=hidden", "acquire=first", "limit=6"), Path("r"))
    assert more.database.count("select count(*) from items") == 6 and judge(more, "ann", by_people) == 2
    assert write_files(more, Path("r")) > number and Path("r/labels.qrels").read_text()
    assert set(open_training_split("mini:train", None, judgements="r").qrels) == set(asked[4:])


def test_an_annotation_of_the_store_or_a_collection_alone_is_reviewed(options: Callable[..., DictConfig]) -> None:
    work = open_review(options("annotation=latest", "suggestion=random", "acquire=uncertainty"), Path("a"))
    seen = {who: [bool(p["suggestion"]) for n in range(4) for p in work.shown(who, n)["passages"]] for who in ("ann", "bob")}
    assert set(seen["ann"] + seen["bob"]) == {True, False}
    alone = open_review(options("candidates.depth=3"), Path("b"))
    assert alone.database.count("select count(*) from passages where label is null") == 12
    with pytest.raises(UserError, match="suggestion=shown: there is no LLM's judgement to show"):
        open_review(options("suggestion=shown"), Path("c"))
    with pytest.raises(UserError, match="acquire=random"):
        open_review(options("acquire=uncertainty"), Path("d"))


def test_what_a_retriever_ranked_is_reviewed(options: Callable[..., DictConfig]) -> None:
    given = ["retriever=bm25", "retrieval_depth=20", "measures=[nDCG@10]", "logger=none"]
    evaluate(composed("evaluate", *given, "collections=[mini:test,mini:dev]"), Path("run"))
    with pytest.raises(UserError, match="run=run: collection=None: give one of those that it ranked: mini.dev, mini.test"):
        open_review(options("run=run"), Path("r"))
    work = open_review(options("run=run", "collection=mini.dev", "candidates.depth=5"), Path("r"))
    ranked = read_run(Path("run/runs/mini.dev.trec"))
    found = work.database.rows("select query_id, doc_id from items join passages using (item)")
    assert {(row["query_id"], row["doc_id"]) for row in found} == {
        (q, d) for q in {row["query_id"] for row in found} for d, _ in ranked[q][:5]
    }
    assert len(found) == 20 and work.collection.reference == "mini:dev"
    with pytest.raises(UserError, match="suggestion=shown: there is no LLM's judgement to show"):
        open_review(options("run=run", "collection=mini.dev", "suggestion=shown"), Path("s"))
    (run := Path("run/runs/mini.dev.trec")).write_text(run.read_text().replace(" Q0 ", " Q0 another"))
    with pytest.raises(UserError, match="run=run: it ranked another mini.dev than mini:dev is today; evaluate again"):
        open_review(options("run=run", "collection=mini.dev"), Path("t"))


FAULTS: list[tuple[list[str], str]] = [
    (["run=none"], "none/config.yaml: no such file; give the folder of a run"),
    (["run=none", "annotation=latest"], "run= and annotation= are both given"),
    (["mode=grid"], "mode='grid'; allowed: list, passage"),
    (["suggestion=maybe"], "suggestion='maybe'; allowed: hidden, shown, random"),
    (["people=0"], "people=0: at least 1"),
    (["shared=2"], "shared=2: a share from 0 to 1"),
    (["positive_grade=2"], "positive_grade=2: a grade of the scale from 1 to 1"),
    (["guideline=none.md"], "none.md: cannot be read"),
    (["grades=none"], "no such scale"),
    (["limit=0"], "limit=0: a whole number from 1 on"),
]


@pytest.mark.parametrize(("overrides", "told"), FAULTS)
def test_what_cannot_work_is_one_line(options: Callable[..., DictConfig], overrides: list[str], told: str) -> None:
    with pytest.raises((UserError, DataError), match=told):
        review(options(*overrides), Path("r"))


def test_a_changed_guideline_or_another_review_is_told_and_nothing_lost(options: Callable[..., DictConfig]) -> None:
    Path("guide.md").write_text("A")
    given = ["guideline=guide.md", "candidates.depth=2"]
    judge(open_review(options(*given), Path("r")), "ann", lambda q, d: 1)
    Path("guide.md").write_text("B")
    with pytest.raises(UserError, match="it differs from the one that 8 labels were made by; new_guideline=true goes on"):
        open_review(options(*given), Path("r"))
    changed = open_review(options(*given, "new_guideline=true", "limit=5"), Path("r"))
    judge(changed, "ann", lambda q, d: 1)
    assert write_files(changed, Path("r")) == 10
    assert len(set(pq.read_table("r/judgements.parquet")["guideline"].to_pylist())) == 2
    for other, told in (
        ("seed=1", "another queue: .* seed=1 .then 0.; give"),
        ("dataset.train=mini:dev", "another collection"),
    ):
        with pytest.raises(UserError, match=f"r holds a review of {told}"):
            open_review(options(*given, "new_guideline=true", other), Path("r"))
    with pytest.raises(UserError, match="r holds a review of other grades"):
        open_review(composed("review", "limit=5", "grades=trec", *given, "new_guideline=true"), Path("r"))


def test_a_file_that_is_older_than_the_labels_is_told(
    options: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    work = open_review(options("candidates.depth=2"), Path("r"))
    judge(work, "ann", lambda q, d: 1)
    write_files(work, Path("r"))
    open_training_split("mini:train", None, judgements="r")
    assert "came in" not in caplog.text
    work.save("ann", [{"id": "event-late", "kind": "label", "item": 0, "place": 0, "grade": 0}])
    open_training_split("mini:train", None, judgements="r")
    assert "judgements.parquet: 1 entries came in after it was written" in caplog.text


def test_a_port_in_use_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = pytest.raises(UserError, match=f"port={port}: cannot listen on 127.0.0.1 .* 0 for any free one")
        with told, listening("127.0.0.1", port):
            pass
    with pytest.raises(UserError, match="no address of this machine"), listening("no.such.host.invalid", 0):
        pass
    with listening("127.0.0.1", 0) as sock:
        assert address(sock, "127.0.0.1", "t").endswith(f":{sock.getsockname()[1]}/?token=t")


def page_of(log: Path) -> str:
    for _ in range(6_000):  # starting takes a second, or a minute beside much other work
        if log.is_file() and "The page: " in (text := log.read_text()):
            return text.split("The page: ")[1].split("/ (")[0]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_the_command_serves_until_it_is_stopped_and_goes_on_after_a_kill(
    options: Callable[..., DictConfig], tmp_path: Path
) -> None:
    given = ["limit=2", "port=0", "candidates.depth=2", "out=r"]

    def post(url: str, path: str, **asked: Any) -> dict[str, Any]:
        return httpx.post(url + path, json=asked, headers={"Origin": url}, timeout=60).json()

    for end, kept in ((signal.SIGKILL, 1), (signal.SIGTERM, 2)):
        outputs = [tmp_path / f"{end.name}.{stream}" for stream in ("stdout", "stderr")]
        process = start_command("uar.review", given, tmp_path, outputs)
        assert process.pid is not None
        try:
            url = page_of(outputs[0])
            item = post(url, "/next", who="ann")["item"]
            assert item == 0, "the question that was open comes again"
            label = {"id": f"event-{end.name}", "kind": "label", "item": item, "place": kept - 1, "grade": 3}
            assert post(url, "/save", who="ann", events=[label])["saved"]
            if end == signal.SIGKILL:
                with pytest.raises(UserError, match="is writing there"):
                    review(options(*given), tmp_path / "r")
            os.kill(process.pid, end)
            process.join(120)
        finally:
            process.kill()
    assert process.exitcode == 0 and "2 judgements: " in outputs[0].read_text()
    assert pq.read_table(tmp_path / "r" / "labels.parquet")["grade"].to_pylist() == [3, 3]


def test_questions_that_nobody_judged_are_judged_and_then_have_labels(
    options: Callable[..., DictConfig], folder: Path
) -> None:
    shutil.rmtree(folder / "qrels")
    own = ["dataset=local", f"dataset.path={folder}", "candidates.depth=2"]
    work = open_review(options(*own), Path("r"))
    assert judge(work, "ann", lambda query_id, doc_id: int(query_id[1] == doc_id[1])) == 3
    write_files(work, Path("r"))
    found = open_training_split("train", str(folder), judgements="r")
    assert {q: found.positives(q) for q in found.queries} == {"q1": ["d1"], "q2": ["d2"], "q3": ["d3"]}


def test_a_command_that_fails_leaves_the_folder_to_a_better_one(options: Callable[..., DictConfig]) -> None:
    for wrong, told in (("suggestion=shown", "there is no LLM's judgement to show"), ("shared=7", "shared=7: a share")):
        with pytest.raises(UserError, match=told):
            open_review(options(wrong), Path("r"))
    assert open_review(options("acquire=first"), Path("r")).about()["items"] == 4, "it is another queue"
