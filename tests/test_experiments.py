"""Every experiment composes at full size and runs on `mini`; sweeps skip what is done and list what failed."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, metrics, ok
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

import uar.entry  # noqa: F401 the resolvers that configs use

Command = Callable[..., subprocess.CompletedProcess[str]]
EXPERIMENTS = sorted(p.stem for p in (ROOT / "conf" / "experiment").glob("*.yaml"))
METHODS = sorted(p.stem for p in (ROOT / "conf" / "method").glob("*.yaml"))
OF_ANNOTATE = {"table1_annotators", "table17_cost"}
GIVEN_BY_USER = ("labels_file.full", "gold.full")
EVERY_ROW = "table6_ablation"


def sweep_of(command: str, *overrides: str) -> list[list[str]]:
    """The overrides of every job of an experiment's sweep, by parameter."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        whole = compose(command, list(overrides), return_hydra_config=True)
    parsed = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in whole.hydra.sweeper.params.items()])
    return [
        [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()] if o.is_sweep_override() else [o.input_line]
        for o in parsed
    ]


def composed(command: str, job: Sequence[str], *overrides: str) -> DictConfig:
    """As the basic sweeper does: parameters, then the command line."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(command, [*job, *overrides])
    OmegaConf.set_struct(cfg, False)
    cfg.pop("logger", None)  # looks at the run folder, which a composed config has not got
    return cfg


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_at_full_size_and_mini_resets_what_it_sets(name: str):
    for command in ("annotate", "train") if name in OF_ANNOTATE else ("train",):
        full, small = (sweep_of(command, f"+experiment={name}", *scale) for scale in ([], ["+scale=mini"]))
        assert 2 <= math.prod(map(len, small)) <= 8 and math.prod(map(len, full)) >= 2
        for at in range(max(map(len, full))):  # every value of every parameter
            cfg = composed(command, [values[at % len(values)] for values in full], f"+experiment={name}")
            assert (cfg.experiment, cfg.scale, cfg.candidates.depth) == (name, "full", 31)
            assert cfg.dataset.train == "irds:msmarco-passage/train/judged"
            if name not in OF_ANNOTATE:
                assert (cfg.retriever.model, cfg.trainer.devices, cfg.training.passages_per_query) == (
                    "Shitao/RetroMAE",
                    -1,
                    16,
                )
                assert cfg.method in METHODS
            for key in GIVEN_BY_USER:
                if OmegaConf.select(cfg, key.split(".")[0]) is not None:
                    OmegaConf.update(cfg, key, "x")
            assert not OmegaConf.missing_keys(cfg) and OmegaConf.to_container(cfg, resolve=True)
        for at in (0, -1):
            cfg = composed(command, [values[at] for values in small], f"+experiment={name}", "+scale=mini")
            assert (cfg.scale, cfg.dataset.train, cfg.dataset.test, cfg.trainer.devices) == (
                "mini",
                "mini:train",
                ["mini:test"],
                1,
            )
            assert cfg.candidates.depth == 8 and cfg.retriever.layers == 3 and "SmolLM2" in cfg.llm.model
            assert cfg.annotator._target_.rpartition(".")[2] in {"Likelihood", "Imported"} and cfg.limit <= 48
            assert OmegaConf.missing_keys(cfg) <= set(GIVEN_BY_USER) and OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_head_of_an_experiment_has_its_command_and_what_it_takes(name: str):
    text = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text()
    head = text.split("defaults:")[0]
    command = "annotate.py" if name in OF_ANNOTATE else "train.py"
    assert f"python {command} -m +experiment={name} " in head and f"+experiment={name} +scale=mini" in head
    assert all(word in head for word in ("GPUs", "Jobs: ", "Assumes: ", "aper"))


def test_experiments_and_methods_set_different_options():
    """In a sweep the method is composed first, on the command line of one job it may be last."""

    def leaves(path: Path) -> set[str]:
        content = yaml.safe_load(path.read_text())
        own = OmegaConf.create({k: v for k, v in content.items() if k not in {"defaults", "hydra"}})
        flat = lambda node, at: (  # noqa: E731
            {x for k, v in node.items() for x in flat(v, f"{at}.{k}")} if isinstance(node, dict) else {at}
        )
        groups = {w for d in content["defaults"] if isinstance(d, dict) for w in d if w.startswith("override")}
        return flat(OmegaConf.to_container(own), "") | groups

    where = [leaves(p) for group in ("experiment", "setting") for p in (ROOT / "conf" / group).glob("*.yaml")]
    for name in METHODS:
        method = ROOT / "conf" / "method" / f"{name}.yaml"
        assert yaml.safe_load(method.read_text())["method"] == name
        assert not any(leaves(method) & other for other in where)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_rows_of_an_experiment_run(command: Command, tmp_path: Path, name: str):
    """All of them of one experiment, the last one of the others."""
    script = "annotate" if name in OF_ANNOTATE else "train"
    short = [] if name == EVERY_ROW else [v[-1] for v in sweep_of(script, f"+experiment={name}", "+scale=mini")]
    more = ["limit=1", "candidates.depth=2"] if script == "annotate" else []
    ok(command(script, "-m", f"+experiment={name}", "+scale=fast_dev_run", *short, *more))
    sweep = tmp_path / "outputs" / name
    found = [yaml.safe_load(p.read_text()) for p in sweep.glob("*/config.yaml")]
    assert len(found) == (8 if name == EVERY_ROW else 1) == len(list(sweep.glob("*/finished.json")))
    assert all((config["experiment"], config["scale"]) == (name, "mini") for config in found)
    wanted = ["ledger.json", "agreement.json"] if script == "annotate" else ["labels.parquet", "metrics.json", "model"]
    assert all((folder / file).exists() for folder in sweep.glob("*/") for file in wanted)


QUICK = ["+scale=fast_dev_run", "+experiment=table7_human_positive"]


def test_a_sweep_started_again_skips_what_is_done_and_runs_what_is_not(command: Command, tmp_path: Path):
    """`+scale` counts wherever it stands on the command line."""
    start = ["-m", *QUICK, "label_source.human_positive=exclude,include"]
    failed = command("train", *start, "label_source.positives=one,many")
    assert failed.returncode == 2
    listed = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(listed) == 2 and all("positives=many" in line and "allowed: one, average, all" in line for line in listed)
    assert all((tmp_path / line.split(": ")[1]).is_dir() for line in listed)

    told = ok(command("train", *start, "label_source.positives=one,all", "resume=true"))
    assert told.count("was finished before") == 2 and told.count("LLM labels: ") == 2
    done = sorted((tmp_path / "outputs" / "table7_human_positive").glob("*/finished.json"))
    assert len(done) == 4 and {"one", "all"} == {re.search(r"positives=(one|all)", str(p))[1] for p in done}

    told = ok(command("train", *start, "label_source.positives=one", "store=elsewhere"))
    assert told.count("was finished before") == 0, "the folders are the same, the config is not"


def test_a_fault_of_one_job_does_not_stop_the_others(command: Command, tmp_path: Path):
    """Not one that a user is told in a line either."""
    done = command(
        "train", "-m", "+scale=fast_dev_run", "label_source=llm", "training.optimizer._target_=torch.optim.AdamW,builtins.dict"
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "builtins.dict" in line and "Traceback" in done.stdout + done.stderr
    assert len(list((tmp_path / "outputs" / "sweep").glob("*/finished.json"))) == 1


def test_joblib_runs_jobs_side_by_side_and_their_failures_are_listed(command: Command, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    options = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "label_source.positives=one,many"]
    words = [sys.executable, str(ROOT / "train.py"), "-m", "+scale=fast_dev_run", "label_source=llm", *options]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "positives=many" in line
    assert len(list((tmp_path / "outputs" / "sweep").glob("*/finished.json"))) == 1


def test_a_search_maximises_dev_ndcg_and_goes_on_where_it_was_stopped(command: Command, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    space = ["training.learning_rate=tag(log,interval(1e-5,1e-3))", "hydra/sweeper=search"]
    quick = ["+scale=fast_dev_run", "label_source=llm", "dataset.dev=mini:dev", "training.dev_queries=6"]
    ok(command("train", "-m", *quick, *space, "hydra.sweeper.n_trials=2"))
    told = ok(command("train", "-m", *quick, *space, "hydra.sweeper.n_trials=3"))
    assert told.count("was finished before") == 2
    sweep = tmp_path / "outputs" / "sweep"
    values = [json.loads(p.read_text())["returned"] for p in sweep.glob("*/finished.json")]
    dev = [next(iter(metrics(p.parent)["train"].values()))["best dev nDCG@10"] for p in sweep.glob("*/finished.json")]
    assert len(values) == 3 and sorted(values) == sorted(dev)
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(values)
