"""SLURM's commands as scripts: `sbatch` runs the tasks of an array one after another on this machine, as `srun` starts them.

A file `requeue` in the folder of states makes `srun` end the processes of its job once a checkpoint is there, and the job is
run again as SLURM does after a preemption.
"""

import os
import sys
from pathlib import Path

SBATCH = """
import os, re, subprocess, sys
from pathlib import Path
state = Path({state!r})
if sys.argv[1] == "--run":
    script, number = sys.argv[2], sys.argv[3]
    text = Path(script).read_text()
    found = dict(re.findall(r"^#SBATCH --([\\w-]+)=(.*)$", text, re.M))
    nodes, each = int(found.get("nodes", 1)), int(found.get("ntasks-per-node", 1))
    last = int(found["array"].split("%")[0].split("-")[-1]) if "array" in found else None
    for task in range((last or 0) + 1):
        name = number if last is None else f"{{number}}_{{task}}"
        given = dict(SLURM_JOB_ID=str(int(number) + task), SLURM_JOB_NAME=found["job-name"].strip("'"))
        given |= dict(SLURM_JOB_NUM_NODES=str(nodes), SLURM_NNODES=str(nodes), SLURM_NTASKS=str(nodes * each))
        given |= dict(SLURM_NTASKS_PER_NODE=str(each), SLURM_JOB_NODELIST="127.0.0.1", SLURM_NODELIST="127.0.0.1")
        if last is not None:
            given |= dict(SLURM_ARRAY_JOB_ID=number, SLURM_ARRAY_TASK_ID=str(task))
        for restart in range(3):
            (state / name).write_text("RUNNING")
            more = dict(SLURM_RESTART_COUNT=str(restart)) if restart else {{}}
            status = subprocess.call(["bash", script], env=os.environ | given | more, cwd=os.getcwd())
            if status != 99:
                break
        (state / name).write_text("FAILED" if status else "COMPLETED")
else:
    number = 1000 * (1 + len(list(state.glob("submitted-*"))))
    (state / f"submitted-{{number}}").write_text(Path(sys.argv[1]).read_text())
    out = (state / f"batch-{{number}}.log").open("w")
    run = [sys.executable, __file__, "--run", sys.argv[1], str(number)]
    subprocess.Popen(run, start_new_session=True, stdout=out, stderr=out)
    print("Submitted batch job", number)
"""
SRUN = """
import os, subprocess, sys, time
from pathlib import Path
state, arguments = Path({state!r}), sys.argv[1:]
options = {{}}
while arguments and arguments[0].startswith("--"):
    name, _, value = arguments.pop(0).partition("=")
    options[name] = value if value or name == "--unbuffered" else arguments.pop(0)
tasks = int(os.environ["SLURM_NTASKS"])
job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])

def place(pattern, task):
    array, own = os.environ.get("SLURM_ARRAY_TASK_ID", "0"), os.environ["SLURM_JOB_ID"]
    for mark, value in (("%A", job), ("%a", array), ("%j", own), ("%t", str(task))):
        pattern = pattern.replace(mark, value)
    return open(pattern, "a")

running = []
for task in range(tasks):
    own = dict(SLURM_PROCID=str(task), SLURM_LOCALID=str(task), SLURM_NODEID="0")
    files = dict(stdout=place(options["--output"], task), stderr=place(options.get("--error", options["--output"]), task))
    running.append(subprocess.Popen(arguments, env=os.environ | own, **files))
wanted = state / "requeue"
if wanted.is_file() and not os.environ.get("SLURM_RESTART_COUNT"):
    folder = Path(wanted.read_text())
    while not list(folder.rglob("*.ckpt")) and any(p.poll() is None for p in running):
        time.sleep(0.1)
    if any(p.poll() is None for p in running):
        for process in running:
            process.kill()
        sys.exit(99)
statuses = [process.wait() for process in running]
sys.exit(max(map(abs, statuses)))
"""
SACCT = """
from pathlib import Path
print("JobID|State|NodeList")
for path in Path({state!r}).iterdir():
    if path.name.replace("_", "").isdecimal():
        print(f"{{path.name}}|{{path.read_text()}}|127.0.0.1")
"""


def put_commands(folder: Path) -> Path:
    """Write the commands to `folder`/bin and return the folder of their states."""
    state = folder / "state"
    state.mkdir(parents=True)
    (folder / "bin").mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        path = folder / "bin" / name
        path.write_text(f"#!{sys.executable}\n{text.format(state=str(state))}")
        path.chmod(0o755)
    os.chmod(folder / "bin", 0o755)
    return state
