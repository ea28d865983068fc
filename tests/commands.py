"""Entry points run as a user runs them, each in a process of its own that need not import torch and transformers again."""

import faulthandler
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = (
    *("train", "annotate", "evaluate", "report", "hybrid", "corpus", "dashboard", "store"),
    *("loop", "review", "tune", "validate"),
)
STACKS = 5  # seconds in which a command that is late writes its stacks
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "uar.training.train_run",
        "uar.annotation.annotate_run",
        "uar.evaluate",
        "uar.reporting.report_run",
        "uar.tracking.loggers",
        "uar.retrievers.bm25.kernels",
        "uar.retrievers.bm25.lexical_index",
        "uar.retrievers.vector_index",
        "uar.retrievers.bi_encoder.encoder",
        "uar.evaluation.measures",
        "bm25s",
        "pytrec_eval",
        "wandb",
        "wandb.sdk.launch",  # which each run of wandb imports
        "transformers.models.bert.modeling_bert",
        "transformers.models.bert.tokenization_bert",
        "transformers.models.llama.modeling_llama",
    ]
)


def run_command(
    name: str, arguments: list[str], folder: Path, timeout: float, environment: dict[str, str | None]
) -> subprocess.CompletedProcess[str]:
    """Run `train`, `annotate` or a module such as `uar.evaluate` in `folder`; environment: what differs from this process',
    None for what is not set."""
    with tempfile.TemporaryDirectory() as place:
        outputs = [Path(place, stream) for stream in ("stdout", "stderr")]
        process = start_command(name, arguments, folder, outputs, environment, timeout)
        try:
            ended(process, timeout + STACKS)
        except TimeoutError as error:
            raise TimeoutError(f"{name} {' '.join(arguments)}: {error}\n{outputs[1].read_text()[-8000:]}") from None
        stdout, stderr = (o.read_text() for o in outputs)
    return subprocess.CompletedProcess([name, *arguments], process.exitcode or 0, stdout, stderr)


def ended(process: BaseProcess, timeout: float = 120) -> int | None:
    """Wait for a process and return its status; one that does not end is killed."""
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"did not end within {timeout:.0f} s")
    return process.exitcode


def start_command(
    name: str,
    arguments: list[str],
    folder: Path,
    outputs: list[Path],
    environment: dict[str, str | None] | None = None,
    timeout: float = 600,
) -> BaseProcess:
    """Start what `run_command` runs, with stdout and stderr to two files; after `timeout` it writes its threads' stacks."""
    values = {name: value for name, value in {**os.environ, **(environment or {})}.items() if value is not None}
    process = FORKS.Process(target=_run, args=(name, arguments, folder, values, outputs, timeout))
    process.start()
    return process


def _run(
    name: str, arguments: list[str], folder: Path, environment: dict[str, str], outputs: list[Path], timeout: float
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR is read anew
    os.chdir(folder)
    for descriptor, path in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    faulthandler.dump_traceback_later(timeout, file=2)
    script = f"{ROOT / name}.py"
    module = name.startswith("uar.")
    sys.argv = [script, *arguments]
    if module:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(script, run_name="__main__")
