"""A sweep through SLURM's commands: submitted, started as tasks, preempted and requeued."""

import os
from pathlib import Path

from commands import run_command
from slurm_commands import put_commands

from uar.storage.files import read_json

SMALL = ["limit=8", "rag=off", "baselines=[]", "label_source=human", "training.batch_size=2", "training.checkpoint_every=1"]
TASKS = ["trainer=slurm", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.launcher.tasks_per_node=2"]


def test_a_preempted_job_goes_on_in_as_many_processes(tmp_path: Path) -> None:
    state = put_commands(tmp_path / "slurm")
    sweep = tmp_path / "sweep"
    (state / "requeue").write_text(str(sweep))
    options = [*SMALL, *TASKS, "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5", f"hydra.sweep.dir={sweep}"]
    path = f"{tmp_path / 'slurm' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    tests = ["dataset.dev=null", "dataset.test=[]"]
    ended = run_command("train", ["-m", "seed=0", *options, *tests], tmp_path, 240, {"PATH": path})
    assert ended.returncode == 0, ended.stderr
    submitted = (state / "submitted-1000").read_text()
    assert "#SBATCH --ntasks-per-node=2" in submitted and "#SBATCH --nodes=1" in submitted
    (folder,) = (path.parent for path in sweep.rglob("finished.json"))
    log = (folder / "uar.log").read_text()
    starts = [int(line.rsplit(" ", 1)[1]) for line in log.splitlines() if "from step" in line]
    assert starts[:2] == [0, 0] and starts[2] > 0 and starts[2:] == [starts[2]] * 2, starts  # both processes say so
    assert read_json(folder / "metrics.json")["train"]["human"]["steps"] == 2
