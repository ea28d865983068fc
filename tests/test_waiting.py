"""How the threads of every kind of process wait, seen in a fresh process at the moment when it loads torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from import_spy import records, spied

from uar.collections import open_collection
from uar.collections.token_ids import corpus_tokens
from uar.machine import children
from uar.machine.waiting import ASLEEP, AWAKE, MARK, NAMES, children_side_by_side, set_waiting, wait_settings
from uar.retrievers import encode
from uar.retrievers.bi_encoder.encoder import BiEncoder

Start = Callable[..., list[dict[str, str]]]
SWEEP = ["-m", "seed=0,1", "hydra.sweep.dir=sweep"]
JOBLIB = [*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
SUBMITIT = [*SWEEP, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]


def without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in (*NAMES, MARK)}


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run `python WORDS` in an environment without settings until it loads torch; the settings of each process that did."""

    def run(*words: str, **environment: str) -> list[dict[str, str]]:
        settings = without_settings() | spied(tmp_path / "spy", "torch", stop=True) | environment
        subprocess.run([sys.executable, *words], env=settings, cwd=tmp_path, capture_output=True, timeout=300, check=False)
        return [{name: seen[name] for name in NAMES if name in seen} for seen in records(tmp_path / "spy")]

    return run


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*NAMES, MARK):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ([str(ROOT / "train.py")], {}, AWAKE),
        ([str(ROOT / "train.py"), "trainer=ddp_cpu"], {}, ASLEEP),  # the first process, which starts the others
        ([str(ROOT / "train.py"), "name=a"], {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}, ASLEEP),
        ([str(ROOT / "train.py"), *JOBLIB], {}, ASLEEP),
        ([str(ROOT / "train.py"), *SUBMITIT], {}, ASLEEP),
        ([str(ROOT / "train.py"), "trainer=ddp_cpu"], {"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
    ids=["train", "ddp", "rank", "joblib", "submitit", "own"],
)
def test_a_command(start: Start, words: list[str], environment: dict[str, str], expected: dict[str, str]):
    if "hydra/launcher" in str(words):
        pytest.importorskip(f"hydra_plugins.hydra_{'joblib' if words[1:] == JOBLIB else 'submitit'}_launcher")
    seen = start(*words, **environment)
    assert seen and all(settings == expected for settings in seen)


def test_an_import_changes_nothing_and_modules_of_commands_leave_torch_to_their_tasks():
    modules = [f"uar.{path.stem}" for path in (ROOT / "uar").glob("*.py") if "entry(" in path.read_text()]
    assert {"uar.train", "uar.annotate", "uar.evaluate", "uar.report"} <= set(modules)
    commands = ["train", "annotate", *modules]
    program = (
        f"import os, sys; before = set(os.environ); import uar, {', '.join(commands)}; assert 'torch' not in sys.modules; "
        "assert not [n for n in set(os.environ) - before if n.startswith(('OMP', 'GOMP', 'KMP', 'UAR'))]"
    )
    subprocess.run([sys.executable, "-c", program], env=without_settings(), cwd=ROOT, check=True)


def test_the_libgomp_of_torch_reads_it():
    program = "from uar.machine.waiting import set_waiting; set_waiting(); import torch"
    words, environment = [sys.executable, "-c", program], without_settings() | {"OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this build of torch has another OpenMP library")
    assert f"GOMP_SPINCOUNT = '{AWAKE['GOMP_SPINCOUNT']}'" in done.stderr


def test_children_have_it_from_their_parents(unset: pytest.MonkeyPatch):
    set_waiting()
    assert {name: os.environ[name] for name in NAMES if name in os.environ} == AWAKE
    with children_side_by_side():
        assert {name: os.environ[name] for name in NAMES if name in os.environ} == ASLEEP
        set_waiting()  # as in a child, which does not know that it has brothers
        assert {name: os.environ[name] for name in NAMES if name in os.environ} == ASLEEP
    assert {name: os.environ[name] for name in NAMES if name in os.environ} == AWAKE
    unset.setenv("GOMP_SPINCOUNT", "20000")  # the user's, for a child
    assert wait_settings(side_by_side=True) == {"GOMP_SPINCOUNT": "20000"}


def test_the_user_may_choose_what_uar_would(unset: pytest.MonkeyPatch):
    unset.setenv("GOMP_SPINCOUNT", AWAKE["GOMP_SPINCOUNT"])
    assert wait_settings(side_by_side=True) == AWAKE


def test_processes_that_encode_a_corpus(unset: pytest.MonkeyPatch, tmp_path: Path, folder: Path):
    from tiny_models import tiny_bert

    retriever, seen = BiEncoder(tiny_bert(tmp_path / "bert")), []

    def spawn(*given: object, **more: object) -> SimpleNamespace:
        seen.append(wait_settings())
        return SimpleNamespace(join=lambda timeout: True)

    unset.setattr(children, "spawn", spawn)
    tokens = corpus_tokens(open_collection(f"local:{folder}:test"), retriever.tokenizer, 32)
    encode.encode_corpus(retriever, tokens, tmp_path / "shards", precision="fp32", processes=2, shard=2)
    assert len(seen) == 1 and seen[0].items() >= ASLEEP.items()
    assert not {*NAMES, MARK} & set(os.environ)
