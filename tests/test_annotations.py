"""Annotations: pools that are stored before they are asked about, and what is read of them afterwards."""

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.queues import Queue
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from annotated import LIKELIHOOD, MODELS, POOL, RELSEL, annotated, begun, by_length, chosen, labels
from commands import FORKS, ended
from conftest import ok
from omegaconf import OmegaConf
from scripted import Scripted, run

from uar.annotation import annotation as annotation_module
from uar.annotation import conclusions
from uar.annotation.annotation import Asked
from uar.annotation.annotators import Annotator, Judgement
from uar.annotation.selection import Annotations
from uar.annotation.store_run import store
from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.llm.pooled import PooledQuestions
from uar.llm.record import Outcome, Reply, Request
from uar.pools import write_pools
from uar.storage.files import read_json, write_json

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def collection(folder: Path) -> Collection:
    return open_collection(f"local:{folder}:train")


def no_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("replayed")

    monkeypatch.setattr(annotation_module, "Chains", refuse)


def test_what_a_run_concluded_is_read_without_a_replay(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotated(tmp_path, collection, LIKELIHOOD)
    no_replay(monkeypatch)
    concluded = chosen(tmp_path, collection, LIKELIHOOD).concluded()
    assert (concluded.failed, concluded.incomplete) == ([], [])
    lengths = sorted(POOL, key=lambda d: len(collection.corpus.text(collection.corpus.row(d))))
    for judgements in concluded.judgements.values():
        assert [j.doc_id for j in judgements] == lengths
        assert [j.label for j in judgements] == [1, 1, 0, 0] and [j.rank for j in judgements] == [1, 2, 3, 4]
        assert all(j.score < 0 and j.uncertainty is None and j.logprobs == () for j in judgements)


def test_a_question_whose_calls_are_not_all_answered_is_incomplete_and_has_no_labels(
    tmp_path: Path, collection: Collection
) -> None:
    begun(tmp_path, collection, LIKELIHOOD)
    whole, half = list(collection.queries)[:2]
    pools = {whole: POOL, half: POOL[:2]}  # a run that was killed after two passages of the second question
    run(tmp_path, LIKELIHOOD, Scripted(by_length), list(PooledQuestions(collection, pools)))
    concluded = chosen(tmp_path, collection, LIKELIHOOD).concluded()
    assert list(concluded.judgements) == [whole]
    assert set(concluded.incomplete) == set(collection.queries) - {whole}
    run(tmp_path, LIKELIHOOD, Scripted(by_length), list(PooledQuestions(collection, {half: POOL})))
    assert set(chosen(tmp_path, collection, LIKELIHOOD).concluded().judgements) == {whole, half}


def test_incomplete_questions_are_looked_for_again_only_once_the_store_has_grown(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path, collection, LIKELIHOOD)
    assert len(chosen(tmp_path, collection, LIKELIHOOD).concluded().incomplete) == 3
    no_replay(monkeypatch)
    assert len(chosen(tmp_path, collection, LIKELIHOOD).concluded().incomplete) == 3
    run(tmp_path, LIKELIHOOD, Scripted(by_length), list(PooledQuestions(collection, {"q1": POOL})))
    with pytest.raises(AssertionError, match="replayed"):
        chosen(tmp_path, collection, LIKELIHOOD).concluded()


def test_a_run_that_is_killed_while_it_reads_replies_goes_on_where_it_stopped(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path, collection, LIKELIHOOD)
    pools = PooledQuestions(collection, dict.fromkeys(collection.queries, POOL))
    run(tmp_path, LIKELIHOOD, Scripted(by_length), list(pools))
    monkeypatch.setattr(conclusions, "BLOCK", 1)
    read: list[str] = []

    def killed(ended: Iterable[tuple[str, object]], shown: object) -> Iterator[tuple[str, object]]:
        for question in ended:
            if len(read) == 2:
                raise KeyboardInterrupt
            read.append(question[0])
            yield question

    monkeypatch.setattr(annotation_module, "counted", killed)
    with pytest.raises(KeyboardInterrupt):
        chosen(tmp_path, collection, LIKELIHOOD).concluded()
    monkeypatch.setattr(annotation_module, "counted", lambda ended, shown: (read.append(q[0]) or q for q in ended))
    assert len(labels(chosen(tmp_path, collection, LIKELIHOOD))) == 3
    assert read == list(collection.queries)
    no_replay(monkeypatch)
    assert len(labels(chosen(tmp_path, collection, LIKELIHOOD))) == 3


def test_a_question_whose_reply_cannot_be_read_has_failed_and_is_no_longer_missing(
    tmp_path: Path, collection: Collection
) -> None:
    begun(tmp_path, collection, RELSEL)
    questions = list(PooledQuestions(collection, dict.fromkeys(collection.queries, POOL)))
    run(tmp_path, RELSEL, Scripted(lambda r: "prose"), questions, max_failure_rate=1.0)
    concluded = chosen(tmp_path, collection, RELSEL).concluded()
    assert (dict(concluded.judgements), concluded.failed, concluded.incomplete) == ({}, list(collection.queries), [])


@pytest.mark.parametrize("which", ["latest", "union"])
def test_a_reply_that_came_before_a_run_was_killed_completes_the_labels_of_its_question(
    which: str, tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(request: Request) -> Reply:
        return Reply("", Outcome.ERROR) if "Danube" in str(request) else by_length(request)

    annotation = begun(tmp_path, collection, LIKELIHOOD)
    questions = list(PooledQuestions(collection, dict.fromkeys(collection.queries, POOL)))
    judged, chains = run(tmp_path, LIKELIHOOD, Scripted(failing), questions, max_failure_rate=1.0)
    annotation.keep(judged, chains.failed)
    some = dict.fromkeys(collection.queries, len(POOL) - 1)
    assert {q: len(of) for q, of in labels(chosen(tmp_path, collection, LIKELIHOOD, which)).items()} == some
    run(tmp_path, LIKELIHOOD, Scripted(by_length), questions[:1])  # and is killed before it keeps what it concludes
    found = {q: len(of) for q, of in labels(chosen(tmp_path, collection, LIKELIHOOD, which)).items()}
    assert found == {**some, questions[0].id: len(POOL)}
    no_replay(monkeypatch)
    assert len(labels(chosen(tmp_path, collection, LIKELIHOOD, which))) == 3


def test_replies_that_are_deleted_are_no_longer_learned_from(tmp_path: Path, collection: Collection) -> None:
    annotated(tmp_path, collection, LIKELIHOOD)
    cfg = OmegaConf.create({"action": "delete", "store": str(tmp_path), "where": {"stage": "likelihood*"}})
    for dry_run, left in ((True, 3), (False, 0)):
        cfg.dry_run = dry_run
        assert store(cfg, tmp_path) == 12
        assert len(labels(chosen(tmp_path, collection, LIKELIHOOD))) == left


def test_another_threshold_is_read_from_the_replies_that_are_there(tmp_path: Path, collection: Collection) -> None:
    annotated(tmp_path, collection, LIKELIHOOD)
    strict = replace(LIKELIHOOD, threshold=25.0)
    assert all(sum(of_query.values()) == 1 for of_query in labels(chosen(tmp_path, collection, strict)).values())
    assert all(sum(of_query.values()) == 2 for of_query in labels(chosen(tmp_path, collection, LIKELIHOOD)).values())


def test_what_one_split_was_looked_through_for_hides_nothing_of_another(tmp_path: Path, folder: Path) -> None:
    for split, query_id in (("train", "q1"), ("dev", "q2")):
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{query_id}\td1\t1\n")
    train, dev = (open_collection(f"local:{folder}:{split}") for split in ("train", "dev"))
    strict = replace(LIKELIHOOD, threshold=25.0)
    for collection in (train, dev):
        annotated(tmp_path / "store", collection, LIKELIHOOD)
    read = [list(labels(chosen(tmp_path / "store", one, strict))) for one in (train, dev, train)]
    assert read == [["q1"], ["q2"], ["q1"]]


def test_a_later_run_of_another_depth_hides_nothing(tmp_path: Path, collection: Collection) -> None:
    deep = labels(annotated(tmp_path, collection, LIKELIHOOD))
    begun(tmp_path, collection, LIKELIHOOD, POOL[:2])
    assert all(set(of_query) == set(POOL[:2]) for of_query in labels(chosen(tmp_path, collection, LIKELIHOOD)).values())
    assert labels(chosen(tmp_path, collection, LIKELIHOOD, "union")) == deep
    begun(tmp_path, collection, LIKELIHOOD)  # the same command again
    assert labels(chosen(tmp_path, collection, LIKELIHOOD)) == deep


def test_pools_of_list_wise_annotators_do_not_add_up(tmp_path: Path, collection: Collection) -> None:
    begun(tmp_path, collection, RELSEL, ["d1", "d2"])
    begun(tmp_path, collection, RELSEL, ["d3"])
    union = chosen(tmp_path, collection, RELSEL, "union")
    rows = collection.corpus.rows(["d3"])
    assert {q: pool.rows.tolist() for q, pool in union.pools.items()} == dict.fromkeys(collection.queries, rows)


def test_what_is_asked_tells_annotations_apart_and_what_is_read_does_not(collection: Collection) -> None:
    def key(annotator: Annotator, models: Sequence[str] = MODELS) -> str:
        return Asked(annotator, models, collection).key

    assert key(RELSEL) == key(replace(RELSEL, layout="paper"))
    others = [replace(RELSEL, temperature=0.5), replace(RELSEL, layout="shared_prefix"), replace(RELSEL, max_words=20)]
    keys = [key(RELSEL), *map(key, others), key(RELSEL, ["other"]), key(LIKELIHOOD)]
    assert len(set(keys)) == len(keys)
    assert key(LIKELIHOOD) == key(replace(LIKELIHOOD, threshold=25.0, rule="margin"))


def test_the_pools_of_a_run_folder_can_be_named(tmp_path: Path, collection: Collection) -> None:
    annotated(tmp_path / "store", collection, LIKELIHOOD)
    write_pools(tmp_path / "run" / "candidates" / "toy.train.jsonl", {"q2": POOL[:3]})
    annotation = chosen(tmp_path / "store", collection, LIKELIHOOD, str(tmp_path / "run"))
    ((query_id, judgements),) = annotation.concluded().judgements.items()
    assert query_id == "q2" and {j.doc_id for j in judgements} == set(POOL[:3])
    with pytest.raises(UserError, match="allowed: latest, union"):
        chosen(tmp_path / "store", collection, LIKELIHOOD, str(tmp_path / "nothing"))


def test_a_store_of_somebody_else_is_read_and_not_written(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotated(tmp_path / "store", collection, LIKELIHOOD)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    monkeypatch.setattr(os, "access", lambda path, mode: tmp_path / "store" != path)
    monkeypatch.setenv("UAR_CACHE", str(tmp_path / "cache"))
    assert labels(chosen(tmp_path / "store", collection, LIKELIHOOD))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before
    assert list((tmp_path / "cache").rglob("*.arrow"))


def _read(store: str, reference: str, replays: "Queue[str]") -> None:
    class Counting(annotation_module.Chains):
        def run(self, questions):  # type: ignore[no-untyped-def]
            replays.put("replay")
            return super().run(questions)

    annotation_module.Chains = Counting
    assert len(chosen(Path(store), open_collection(reference), LIKELIHOOD).concluded().judgements) == 3
    replays.put("read")


def test_of_several_processes_one_replays_and_the_others_read_what_it_wrote(tmp_path: Path, collection: Collection) -> None:
    begun(tmp_path, collection, LIKELIHOOD)
    questions = PooledQuestions(collection, dict.fromkeys(collection.queries, POOL))
    run(tmp_path, LIKELIHOOD, Scripted(by_length), list(questions))
    replays = FORKS.Queue()
    processes = [FORKS.Process(target=_read, args=(str(tmp_path), collection.reference, replays)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [ended(process) for process in processes] == [0, 0, 0]
    assert sorted(replays.get(timeout=10) for _ in range(4)) == ["read", "read", "read", "replay"]


def test_judgements_keep_all_that_they_have(tmp_path: Path, collection: Collection) -> None:
    annotation = begun(tmp_path, collection, RELSEL)
    judgements = [
        Judgement("d1", 1, 3, 0.25, 1, uncertainty=0.5, logprobs=(-1.5, -0.25)),
        Judgement("d5", 0, -1, None, 2),
    ]
    annotation.keep({"q1": judgements, "q2": []}, ["q3"])
    concluded = chosen(tmp_path, collection, RELSEL).concluded()
    assert dict(concluded.judgements) == {"q1": judgements, "q2": []}
    assert (concluded.failed, concluded.incomplete) == (["q3"], [])


def test_an_earlier_run_is_brought_over_from_its_folder(
    tmp_path: Path, folder: Path, collection: Collection, command: Command
) -> None:
    store = tmp_path / "annotations"
    pool = POOL[:3]
    run(store, LIKELIHOOD, Scripted(by_length), list(PooledQuestions(collection, {"q1": pool, "q2": pool})))
    write_pools(tmp_path / "old" / "candidates" / "toy.train.jsonl", {"q1": pool, "q2": pool, "q3": pool})
    config = {
        "dataset": {"train": "train", "path": str(folder), "positive_grade": None, "answers": None},
        "annotator": {
            "_target_": "uar.annotation.stages.Likelihood",
            "template": "likelihood_question",
            "threshold": 50.0,
        },
        "candidates": {"_target_": "uar.candidates.BM25Pool", "depth": 3},
        "llm": {"_target_": "uar.annotation.engines.openai.OpenAIEngine", "model": "scripted@1"},
    }
    write_json(tmp_path / "old" / "config.yaml", config)  # JSON is YAML
    write_json(tmp_path / "old" / "ledger.json", {})
    log = ok(command("uar.store", "runs=[old,nothing]"))
    assert "pools of 3 questions are in the store now; 2 have labels, 0 failed, 1 lack replies" in log
    assert set(chosen(store, collection, LIKELIHOOD).concluded().judgements) == {"q1", "q2"}
    again = ok(command("uar.store", f"collection=local:{folder}:dev"))
    assert "Likelihood" in again and "scripted@1" in again
    assert "Likelihood" not in ok(command("uar.store", "collection=mini:train"))
    why = ["uar.store", "action=why", f"collection=local:{folder}:train"]
    told = ok(command(*why, "question=q3"))
    assert "old: 3 of its passages were shown" in told and "no reply is kept under its id" in told
    assert "replies to likelihood_question (likelihood_question, scripted@1): 3 ok" in ok(command(*why, "question=q1"))
    (folder / "queries.jsonl").write_text((folder / "queries.jsonl").read_text().replace("what pumps", "who pumps"))
    assert "asked with another text, image or other answers than it has now" in ok(command(*why, "question=q1"))
    assert "question=q9: no question of local:" in command(*why, "question=q9").stderr


def test_a_folder_that_brings_nothing_is_one_line(fails: Callable[..., str], tmp_path: Path) -> None:
    assert "runs=old: no annotate run that can be brought over (0 were found)" in fails("uar.store", "runs=old")


TRAIN = [
    "label_source=llm",
    "llm=openai",
    "llm.model=scripted@1",
    "llm.base_urls=[http://127.0.0.1:9/v1]",
    "annotator.threshold=50",
    "dataset=local",
    "dataset.dev=null",
    "dataset.test=[]",
    "rag=off",
    "logger=none",
    "training.batch_size=2",
    "hydra.run.dir=run",
]


def test_training_leaves_out_what_a_killed_run_did_not_finish_and_says_how_to_complete_it(
    tmp_path: Path, folder: Path, collection: Collection, command: Command
) -> None:
    store = tmp_path / "annotations"
    begun(store, collection, LIKELIHOOD)
    pools = {"q1": POOL, "q2": POOL, "q3": POOL[:2]}
    run(store, LIKELIHOOD, Scripted(by_length), list(PooledQuestions(collection, pools)))
    log = ok(command("train", *TRAIN, f"dataset.path={folder}"))
    assert "1 of 3 questions lack replies and are left out; complete them with: python -m uar.annotate" in log
    assert set(pq.read_table(tmp_path / "run" / "labels.parquet")["query_id"].to_pylist()) == {"q1", "q2"}
    (taken,) = read_json(tmp_path / "run" / "manifest.json")["annotations"]
    assert (taken["which"], taken["questions"], taken["incomplete"], taken["failed"]) == ("latest", 3, 1, 0)


def test_what_completes_a_question_is_the_command_that_brought_it(tmp_path: Path, collection: Collection) -> None:
    asked, store = Asked(LIKELIHOOD, MODELS, collection), Annotations(tmp_path)
    for command, questions in (("limit=3", ["q1", "q2", "q3"]), ("limit=1", ["q1"]), ("depth=2", ["q2"])):
        pools = dict.fromkeys(questions, POOL[:2] if command == "depth=2" else POOL)
        store.begin(asked, {"seed": 0}, pools, {}, command=command)
    reworded = replace(collection, queries={q: replace(one, text=f"{one.text}?") for q, one in collection.queries.items()})
    of_lot = dict.fromkeys(reworded.queries, POOL)
    store.begin(Asked(LIKELIHOOD, MODELS, reworded), {"seed": 0}, of_lot, {}, command="other lot")
    latest, union = (store.choose(asked, which) for which in ("latest", "union"))
    assert latest is not None and union is not None
    for annotation in (latest, union):
        assert annotation.commands(["q1", "q3"]) == ["limit=3"]
        assert annotation.commands(["q3", "q2"]) == ["depth=2", "limit=3"]
    begun(tmp_path, collection, RELSEL)
    without = store.choose(Asked(RELSEL, MODELS, collection), "latest")
    assert without is not None and without.commands(["q1"]) == []


def test_an_annotation_without_a_whole_question_is_one_line(
    folder: Path, tmp_path: Path, collection: Collection, fails: Callable[..., str]
) -> None:
    begun(tmp_path / "annotations", collection, LIKELIHOOD)
    line = fails("train", *TRAIN, f"dataset.path={folder}")
    assert "no question of the annotation has labels (3 of 3 questions lack replies, 0 failed)" in line
    other = fails("train", *TRAIN, f"dataset.path={folder}", "annotator=utilrank")
    assert "holds no annotation of it by UtilRank" in other and "of this corpus it holds: Likelihood with scripted@1" in other
    assert "toy.train, 3 questions" in other


def test_what_a_store_holds_is_said_with_the_way_to_take_it(tmp_path: Path, collection: Collection) -> None:
    store = Annotations(tmp_path / "store")
    assert f"there is no folder {tmp_path / 'store'}" in store.held(collection)
    begun(tmp_path / "store", collection, LIKELIHOOD)
    asked = Asked(RELSEL, ["other@2"], collection)
    store.begin(asked, {"depth": 7}, {"q1": POOL}, {"folder": "outputs/relsel"})
    said = store.held(collection)
    assert "RelSel with other@2, depth 7, of toy.train, 1 questions, run outputs/relsel" in said and "Likelihood with" in said
    assert "such as annotation=outputs/relsel" in said
    elsewhere = open_collection("mini:train")
    assert store.held(elsewhere) == "it holds nothing of this corpus, but of toy.train"
