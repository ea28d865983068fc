"""What a user gets wrong ends in one line that says where, what is allowed and what to do; nothing written is lost."""

import json
import os
import resource
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import write_jsonl
from hydra import compose, initialize_config_dir

from uar.collections import open_collection
from uar.errors import DataError, UserError
from uar.labels.human import first_share
from uar.launch.entry import CONF, composed
from uar.launch.other_commands import annotate_command

QUICK = ("rag=off", "logger=none")
CORPUS = '{"_id": "d1", "title": "", "text": "The heart pumps blood."}\n'
QUERIES = '{"_id": "q1", "text": "what pumps blood"}\n'
Fails = Callable[..., str]
Command = Callable[..., subprocess.CompletedProcess[str]]


def local(folder: Path) -> tuple[str, str]:
    return "dataset=local", f"dataset.path={folder}"


def put(folder: Path, name: str, content: str | bytes) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_missing_folder_is_named(fails: Fails, tmp_path: Path) -> None:
    error = fails("annotate", *local(tmp_path / "absent"))
    assert f"no folder {tmp_path / 'absent'}" in error
    assert "give an existing folder with corpus.jsonl and queries.jsonl" in error


def test_a_missing_split_is_named_with_those_that_exist(fails: Fails, folder: Path) -> None:
    error = fails("annotate", *local(folder), "dataset.train=tarin")
    assert f"no split 'tarin' in {folder}" in error
    assert "it has dev, test, train" in error


def test_a_missing_dev_split_stops_before_anything_is_trained(fails: Fails, folder: Path) -> None:
    error = fails("train", *local(folder), *QUICK, "label_source=human", "dataset.dev=absent", "hydra.run.dir=run")
    assert "no split 'absent'" in error
    assert "it has dev, test, train" in error
    assert not (folder.parent / "run" / "labels.parquet").exists()


FAULTS = {  # name -> (file, content, place, what the message says)
    "broken JSON": ("corpus.jsonl", CORPUS + '{"_id": "d2", "text": "x"\n', "corpus.jsonl:2", "broken JSON"),
    "duplicate passage id": ("corpus.jsonl", CORPUS + "\n" + CORPUS, "corpus.jsonl:3", "duplicate id 'd1' (first at line 1)"),
    "duplicate question id": ("queries.jsonl", QUERIES * 2, "queries.jsonl:2", "duplicate id 'q1'"),
    "empty passage id": ("corpus.jsonl", CORPUS + '{"_id": "", "text": "x"}', "corpus.jsonl:2", "give a non-empty string"),
    "empty question id": ("queries.jsonl", '{"_id": " ", "text": "x"}', "queries.jsonl:1", "give a non-empty string"),
    "unknown question": ("qrels/train.tsv", "q1\td1\t1\nq9\td1\t1\n", "train.tsv:2", "query id 'q9' is not in queries.jsonl"),
    "unknown passage": ("qrels/train.tsv", "q1\td1\t1\nq1\td9\t0\n", "train.tsv:2", "corpus id 'd9' is not in corpus.jsonl"),
    "empty corpus": ("corpus.jsonl", "\n", "corpus.jsonl", "no passages; at least one is needed"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_in_a_file_is_told_with_its_place(fails: Fails, folder: Path, fault: str) -> None:
    name, content, place, told = FAULTS[fault]
    put(folder, name, content)
    error = fails("annotate", *local(folder))
    assert f"{folder}/" in error
    assert f"{place}: " in error
    assert told in error


MORE_FAULTS = [
    ("corpus.jsonl", '["d1"]\n', "corpus.jsonl:1: found a JSON list"),
    ("corpus.jsonl", CORPUS + '{"text": "x"}\n', "corpus.jsonl:2: empty or missing id under '_id' (no such key)"),
    ("corpus.jsonl", CORPUS + '{"_id": "d2"}\n', "corpus.jsonl:2: 'text' is None"),
    ("corpus.jsonl", CORPUS + '{"_id": "d2", "text": 7}\n', "corpus.jsonl:2: 'text' is 7"),
    ("corpus.jsonl", CORPUS + '{"_id": "d2", "text": "half a pair \\ud800"}\n', "corpus.jsonl:2: "),
    ("corpus.jsonl", CORPUS + '{"_id": "d\\ud800", "text": "x"}\n', "corpus.jsonl:2: "),
    ("corpus.jsonl", CORPUS.encode() + b'{"_id": "d2", "text": "caf\xe9"}\n', "corpus.jsonl:2: not UTF-8"),
    ("corpus.jsonl", CORPUS.encode("utf-16"), "corpus.jsonl:1: not UTF-8"),
    ("corpus.jsonl", '{"_id": 7, "text": "x"}\n{"_id": "7", "text": "y"}\n', "corpus.jsonl:2: duplicate id '7'"),
    ("queries.jsonl", '{"_id": "q1", "text": "x", "answers": [1]}\n', "queries.jsonl:1: 'answers' is [1]"),
    ("queries.jsonl", '{"_id": "q1", "text": "half a pair \\udc00"}\n', "queries.jsonl:1: "),
    ("qrels/test.tsv", "q1\td1\t1\nq1 d2 1\n", "test.tsv:2: 1 columns"),
    ("qrels/test.tsv", "q1\td1\t1\nq1\td2\tyes\n", "test.tsv:2: grade is 'yes'"),
    ("qrels/test.tsv", "q1\td1\tyes\nq1\td2\t1\n", "test.tsv:1: grade is 'yes'"),
    ("candidates/test.jsonl", '{"query_id": "q1", "candidates": ["d9"]}\n', "test.jsonl:1: candidate id 'd9'"),
    ("candidates/test.jsonl", '{"query_id": "q9", "candidates": ["d1"]}\n', "test.jsonl:1: query id 'q9'"),
    ("candidates/test.jsonl", '{"query_id": "q1", "candidates": "d1"}\n', "test.jsonl:1: 'candidates' is 'd1'"),
    ("collection.json", '{"positive_grade":\n x}', "collection.json:2: broken JSON"),
    ("collection.json", '{"positive": 2}', "collection.json: unknown key 'positive'"),
    ("collection.json", '{"positive_grade": "2"}', "collection.json: "),
    ("collection.json", b'{"positive_grade": "\xe9"}', "collection.json: "),
    ("collection.json", "[]", "collection.json: "),
]


@pytest.mark.parametrize(("name", "content", "told"), MORE_FAULTS)
def test_other_faults_in_files_name_file_and_line(folder: Path, name: str, content: str | bytes, told: str) -> None:
    put(folder, name, content)
    with pytest.raises(DataError) as caught:
        open_collection(f"local:{folder}:test")
    assert str(caught.value).startswith(f"{folder}/")
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_a_missing_file_of_a_folder_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file"):
        open_collection(f"local:{folder}:test")


def test_a_faulty_corpus_leaves_no_cache_behind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UAR_CACHE", str(tmp_path / "cache"))
    put(folder, "corpus.jsonl", CORPUS + CORPUS)
    for _ in range(2):
        with pytest.raises(DataError, match="corpus.jsonl:2: duplicate id 'd1'"):
            open_collection(f"local:{folder}:test")
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_training_without_a_positive_is_refused(fails: Fails, folder: Path) -> None:
    put(folder, "qrels/train.tsv", "q1\td1\t0\nq2\td2\t0\n")
    error = fails("train", *local(folder), *QUICK, "label_source=human")
    assert f"local:{folder}:train: none of 2 questions gets a human label (human_frac=1.0)" in error
    assert "label_source=llm" in error


def test_scoring_without_a_positive_is_refused(fails: Fails, folder: Path) -> None:
    put(folder, "qrels/test.tsv", "q1\td1\t0\n")
    error = fails("uar.evaluate", "retriever=bm25", f"collections=[local:{folder}:test]")
    assert f"local:{folder}:test: no question with a positive" in error


def test_options_of_a_search_of_vectors_are_refused_where_there_are_none(fails: Fails, folder: Path) -> None:
    collection = f"collections=[local:{folder}:test]"
    error = fails("uar.evaluate", "retriever=bm25", "search=hnsw", "search.dimensions=8", collection)
    assert error.startswith("error: search.dimensions=8, search.factory=HNSW32: bm25(k1=1.5, b=0.75) does not read this")


def test_questions_without_positives_are_counted_and_left_out(command: Command, folder: Path) -> None:
    put(folder, "qrels/test.tsv", "q1\td1\t1\nq2\td2\t0\n")
    done = command("uar.evaluate", "retriever=bm25", f"collections=[local:{folder}:test]", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 questions have no positive and are left out" in done.stdout + done.stderr
    scores = pq.read_table(folder.parent / "run" / "scores" / "toy.test.parquet").to_pylist()
    assert {row["query_id"] for row in scores} == {"q1"}


def test_a_human_share_above_one_is_refused(fails: Fails, folder: Path) -> None:
    error = fails("train", *local(folder), *QUICK, "human_frac=1.5")
    assert "human_frac=1.5" in error
    assert "from 0 to 1" in error


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), float("inf"), "a fifth", None])
def test_a_human_share_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="human_frac=.*from 0 to 1"):
        first_share(["q1", "q2"], ["q2", "q1"], value)  # type: ignore[arg-type]


def test_the_ends_of_the_human_share_are_allowed() -> None:
    assert first_share(["q1", "q2"], ["q2", "q1"], 0) == []
    assert first_share(["q1", "q2"], ["q2", "q1"], 1) == ["q1", "q2"]


def test_an_unknown_option_is_named(fails: Fails) -> None:
    error = fails("annotate", "annotator.treshold=5")
    assert "annotator.treshold" in error
    assert "--help" in error


OPENAI = ("llm=openai", "llm.base_urls=[http://127.0.0.1:9/v1]", "llm.model=m")
SECOND = ("+llm@llms.second=openai", "llms.second.base_urls=[http://127.0.0.1:9/v1]", "llms.second.model=m")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["shard=0/2"], "shard='0/2': I/N with 1 <= I <= N is needed"),
        (["shard=3/2"], "shard='3/2': I/N with 1 <= I <= N is needed"),
        (["annotator=ensemble"], "annotator.samples=1 of 1 model(s), annotator.shuffles=1: an ensemble needs two members"),
        (["annotator=ensemble", *OPENAI, *SECOND], "llm and llms name m more than once"),
        (["annotator=relsel", *OPENAI, *SECOND, "llms.second.model=n"], "2 models are given and RelSel asks 1"),
        (["retry_failures=[unreadable]"], "retry_failures names 'unreadable'; allowed: empty, out_of_range, unparsable"),
        (["against=absent.tsv"], "absent.tsv"),
        (["price.input=-1"], "price.input=-1: a price from 0 up is needed"),
        (["annotator=pointwise", "annotator.scale=absent.yaml"], "absent.yaml: no such scale"),
    ],
)
def test_an_impossible_annotation_is_told_before_anything_is_asked(
    fails: Fails, folder: Path, options: list[str], told: str
) -> None:
    assert told in fails("annotate", *local(folder), *options)


def test_a_depth_that_is_no_number_is_named(fails: Fails, folder: Path) -> None:
    error = fails("annotate", *local(folder), "candidates.depth=eight")
    assert "depth" in error
    assert "eight" in error


def test_missing_labels_are_told_with_the_command_that_makes_them(fails: Fails, folder: Path) -> None:
    place = folder.rename(folder.parent / "two words")
    choices = ["label_source=llm", "annotator=utilsel", "llm=openai", "llm.model=M", "llm.base_urls=[http://h/v1,http://i/v1]"]
    settings = ["candidates=given", "candidates.depth=5", "seed=3", "limit=2", "store=kept", "annotator.max_words=50"]
    error = fails("train", "dataset=local", f"dataset.path='{place}'", *QUICK, *choices, *settings)
    assert f"local:{place}:train" in error
    assert "kept" in error
    words = shlex.split(error.partition("make one with: python -m uar.annotate ")[2])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        annotate = compose("annotate", words)
        train = compose("train", ["dataset=local", f"dataset.path='{place}'", *choices, *settings])
    assert annotate.dataset.path == str(place)
    for part in ("dataset", "annotator", "llm", "candidates", "seed", "limit", "store"):
        assert annotate[part] == train[part], part


def test_the_command_that_makes_missing_labels_knows_experiments_and_further_annotators() -> None:
    options = ["+experiment=table2_in_domain", "+method=utilsel_20", "candidates.depth=7", "llm=qwen2_5_32b"]
    further = [
        "+annotator@annotators.more=pointwise",
        "+llm@llms.more=openai",
        "llms.more.model=7",
        "llms.more.base_urls=[http://h]",
    ]
    cfg = composed("train", *options, *further)
    for annotator, llm in ((cfg.annotator, cfg.llm), (cfg.annotators.more, cfg.llms.more)):
        _, _, module, *words = shlex.split(annotate_command(cfg, annotator, llm))
        made = composed("annotate", *words)
        assert module == "uar.annotate" and made.dataset.train == "irds:msmarco-passage/train/judged"
        assert (made.annotator, made.llm, made.candidates) == (annotator, llm, cfg.candidates)
    usual = composed("train")
    assert annotate_command(usual, usual.annotator, usual.llm) == "python -m uar.annotate"
    cfg = composed("train", "annotator=ensemble", *further[1:])
    made = composed("annotate", *shlex.split(annotate_command(cfg, cfg.annotator, cfg.llm))[3:])
    assert (made.annotator, made.llms) == (cfg.annotator, cfg.llms)


class Server(ThreadingHTTPServer):
    """A chat server that always selects the first passage, at length; after `good` replies it hangs up."""

    def __init__(self, good: float = float("inf"), length: int = 10) -> None:
        super().__init__(("127.0.0.1", 0), Replies)
        self.good, self.text, self.calls = good, "My selection:[[1]]".ljust(length, "."), 0

    @property
    def options(self) -> list[str]:
        url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        more = ["llm.model=scripted", "llm.window=1", "llm.retries=1", "llm.backoff=0.01", "logger=none"]
        return ["annotator=utilsel", "llm=openai", f"llm.base_urls=[{url}]", *more]


class Replies(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.calls >= self.server.good:
            return
        self.server.calls += 1
        choice = {"message": {"content": self.server.text}, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(**options: float) -> Iterator[Server]:
    with Server(**options) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ledger(run: Path) -> dict:
    return json.loads((run / "ledger.json").read_text())


def test_a_server_that_is_down_is_named(fails: Fails, folder: Path) -> None:
    with serving() as server:
        options = server.options
    error = fails("annotate", *local(folder), *options)
    assert options[2].removeprefix("llm.base_urls=[").removesuffix("]") in error
    assert "does not answer" in error
    assert "after 2 tries" in error
    assert "start the server or mend the URL" in error


def test_what_a_server_answered_before_it_went_down_is_kept(fails: Fails, command: Command, folder: Path) -> None:
    with serving(good=4) as server:
        error = fails("annotate", *local(folder), *server.options)
    assert "does not answer" in error
    with serving() as server:
        done = command("annotate", *local(folder), *server.options, "hydra.run.dir=again")
    assert done.returncode == 0, done.stderr
    spent = ledger(folder.parent / "again")
    assert (spent["calls"], spent["calls_answered_by_store"], spent["queries"]) == (server.calls, 4, 3)
    assert server.calls == 5


@contextmanager
def small_disk(place: Path, kib: int) -> Iterator[bool]:
    """A disk of so many KiB at `place`; where none can be mounted, no file may grow past half of that."""
    place.mkdir()
    mounted = os.geteuid() == 0 and _runs("mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 512, limits[1]))
        yield mounted
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if mounted:
            kept = place.with_name(f"{place.name}.kept")
            _runs("cp", "-a", str(place), str(kept))
            subprocess.run(["umount", "-l", str(place)], check=True)
            place.rmdir()
            kept.rename(place)


def _runs(*words: str) -> bool:
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_a_full_disk_keeps_the_answers_that_were_finished(fails: Fails, command: Command, folder: Path) -> None:
    store = folder.parent / "store"
    with serving(length=200_000) as server:
        with small_disk(store, kib=1_024):
            error = fails("annotate", *local(folder), *server.options, f"store={store}")
        finished = server.calls - 1
        assert "no space left while writing" in error
        assert str(store) in error
        assert "free some space" in error
        assert 1 <= finished < 9
        server.calls = 0
        done = command("annotate", *local(folder), *server.options, f"store={store}", "hydra.run.dir=again")
    assert done.returncode == 0, done.stderr
    spent = ledger(folder.parent / "again")
    assert (spent["calls"], spent["calls_answered_by_store"]) == (9 - finished, finished)
    assert server.calls == 9 - finished


def test_a_disk_that_fills_while_a_model_is_saved_is_told(fails: Fails, folder: Path) -> None:
    run = folder.parent / "run"
    with small_disk(run, kib=1_024) as mounted:
        error = fails("train", *local(folder), *QUICK, "label_source=human", f"hydra.run.dir={run}")
    assert "no space left while writing" in error
    assert str(run) in error or not mounted
    assert len(pq.read_table(run / "labels.parquet")) > 0


@pytest.mark.parametrize("kib", [512, 1_600])
def test_a_disk_that_fills_while_a_cache_is_built_is_told(fails: Fails, folder: Path, kib: int) -> None:
    rows = [{"_id": f"p{i}", "text": f"text {i}"} for i in range(40_000)]
    write_jsonl(folder / "corpus.jsonl", rows)
    put(folder, "qrels/train.tsv", "q1\tp1\t1\n")
    cache = folder.parent / "cache"
    with small_disk(cache, kib=kib):
        error = fails("annotate", *local(folder), UAR_CACHE=str(cache))
    assert "no space left while writing" in error
    assert list((cache / "corpora").iterdir()) == []
