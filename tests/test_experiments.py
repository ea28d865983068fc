"""Every experiment composes at full size and runs on `mini`; sweeps skip what is done and list what failed."""

import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, SMALL, metrics, ok
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from uar.errors import UserError
from uar.launch import sweeps
from uar.launch.entry import composed as of_command
from uar.storage.files import write_text

Command = Callable[..., subprocess.CompletedProcess[str]]
EVIDENCE, RANKERS = ON_ANY_COLLECTION = "evidence", "rankers"
EXPERIMENTS = sorted(p.stem for p in (ROOT / "conf" / "experiment").glob("*.yaml") if p.stem not in ON_ANY_COLLECTION)
METHODS = sorted(p.stem for p in (ROOT / "conf" / "method").glob("*.yaml"))
OF_ANNOTATE = {"table1_annotators", "table17_cost"}
GIVEN_BY_USER = ("labels_file.full", "gold.full")
EVERY_ROW = "table6_ablation"


@cache
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
            if name in OF_ANNOTATE:
                assert (cfg.engine.get("actors"), cfg.engine.get("num_gpus")) == (8, 1) and "ray" in cfg.engine._target_
        for at in (0, -1):
            cfg = composed(command, [values[at] for values in small], f"+experiment={name}", "+scale=mini")
            assert (cfg.scale, cfg.dataset.train, cfg.dataset.test, cfg.trainer.devices) == (
                "mini",
                "mini:train",
                ["mini:test"],
                1,
            )
            assert name not in OF_ANNOTATE or cfg.engine == {"_target_": "uar.llm.engines.local.LocalEngine"}
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


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_commands_in_the_head_of_an_experiment_compose(name: str):
    head = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text().split("defaults:")[0]
    found = re.findall(r"^#.*?python (?:-m uar\.)?(\w+)(?:\.py)?(?: -m)? (.*?)(?:  .*)?$", head, re.MULTILINE)
    assert len(found) >= 2
    for command, words in found:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            compose(command, shlex.split(words))


def test_what_heads_name_for_fewer_gpus_and_another_generator_is_taken():
    fewer = composed("annotate", ["llm=qwen2_5_32b"], "+experiment=table1_annotators", "engines.full.actors=4")
    assert (fewer.engine.actors, fewer.engine.num_gpus) == (4, 1)
    other = composed("train", ["+method=human"], "+experiment=table5_nq_hotpotqa", "llm@generators.full=qwen2_5_32b")
    assert "Qwen2.5-32B" in other.rag.llm.model


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


def methods_of(name: str) -> list[str]:
    """Of an experiment's sweep, in order."""
    params = [values for values in sweep_of("train", f"+experiment={name}") if values[0].startswith("+method=")]
    return [value.removeprefix("+method=") for values in params for value in values]


@cache
def jobs_to_run() -> dict[str, list[str]]:
    """Methods by experiment: all of one experiment, of the others those that none before has, or else the last."""
    chosen = {EVERY_ROW: methods_of(EVERY_ROW)}
    for name in EXPERIMENTS:
        seen = {method for methods in chosen.values() for method in methods}
        if name not in OF_ANNOTATE and name != EVERY_ROW:
            chosen[name] = [m for m in methods_of(name) if m not in seen] or methods_of(name)[-1:]
    return chosen


def test_every_method_is_a_row_of_an_experiment_that_runs_here():
    assert sorted({method for methods in jobs_to_run().values() for method in methods}) == METHODS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_rows_of_an_experiment_run(command: Command, tmp_path: Path, tiny: list[str], name: str):
    """Every method in one experiment; of the other parameters the last value."""
    script = "annotate" if name in OF_ANNOTATE else "train"
    methods = jobs_to_run().get(name, [])
    last = [values[-1] for values in sweep_of(script, f"+experiment={name}", "+scale=mini")]
    short = [f"+method={','.join(methods)}" if word.startswith("+method=") else word for word in last]
    more = ["limit=1", "candidates.depth=2"] if script == "annotate" else tiny
    ok(command(script, "-m", f"+experiment={name}", *short, "+scale=fast_dev_run", *more))
    sweep = tmp_path / "outputs" / name
    found = [yaml.safe_load(p.read_text()) for p in sweep.glob("*/config.yaml")]
    assert len(found) == max(1, len(methods)) == len(list(sweep.glob("*/finished.json")))
    assert all((config["experiment"], config["scale"]) == (name, "mini") for config in found)
    wanted = ["ledger.json", "agreement.json"] if script == "annotate" else ["labels.parquet", "metrics.json", "model"]
    assert all((folder / file).exists() for folder in sweep.glob("*/") for file in wanted)
    if name == "imported_labels":
        (labels,) = (pq.read_table(f / "labels.parquet") for f in sweep.glob("*/") if "method=imported," in f.name)
        assert sum(labels["label"].to_pylist()) == len(set(labels["query_id"].to_pylist())) == 6, "one passage answers each"


def test_the_rows_of_the_evidence_take_as_many_steps_and_differ_in_their_labels(
    command: Command, tmp_path: Path, tiny: list[str]
):
    name, rows = f"+experiment={EVIDENCE}", methods_of(EVIDENCE)
    files = (ROOT / "conf" / "method" / "evidence").glob("*.yaml")
    assert sorted(rows) == sorted(f"evidence/{path.stem}" for path in files)
    made = [composed("train", [f"+method={row}", "seed=1"], name) for row in rows]
    assert [cfg.method for cfg in made] == [row.partition("/")[2] for row in rows]
    assert {(cfg.training.steps, cfg.dataset.train, cfg.seed, cfg.experiment) for cfg in made} == {
        (26, "mini:train", 1, EVIDENCE)
    }
    methods = [
        [OmegaConf.to_container(c[group], resolve=True) for group in ("label_source", "loss", "annotator")] for c in made
    ]
    assert all(methods.count(method) == 1 for method in methods)
    own = composed("train", ["+method=evidence/llm"], name, "dataset=local", "dataset.path=DIR", "retriever=minilm_l3")
    assert (own.training.steps, own.retriever.layers) == (150, 3)
    few = "+method=evidence/human,evidence/unsure_20,evidence/union_20,evidence/qa_metric,evidence/soft,evidence/wrong_50"
    quick = ["seed=0", *SMALL, *tiny, "training.steps=2", "dataset.dev=null", "logger=none"]
    ok(command("train", "-m", name, few, *quick))
    found = {p.parent.name: p.parent for p in (tmp_path / "outputs" / EVIDENCE).glob("*/finished.json")}
    assert len(found) == 6
    assert all(sum(stage["steps"] for stage in metrics(run)["train"].values()) == 2 for run in found.values())


def test_the_rows_of_the_rankers_are_kinds_and_the_distilled_one_learns_from_another(
    command: Command, tmp_path: Path, tiny: list[str]
):
    name, rows = f"+experiment={RANKERS}", methods_of(RANKERS)
    files = {f"rankers/{path.stem}" for path in (ROOT / "conf" / "method" / "rankers").glob("*.yaml")}
    assert sorted(rows) == sorted(files - {"rankers/distilled"})
    quick = [*SMALL, *tiny, "trainer.max_steps=1", "training.epochs=1", "dataset.dev=null", "logger=none", "baselines=[]"]
    ok(command("train", "-m", name, *quick))
    sweep = tmp_path / "outputs" / RANKERS
    configs = {p.parent: yaml.safe_load(p.read_text()) for p in sweep.glob("*/config.yaml")}
    kinds = {config["method"]: config["retriever"]["_target_"].rpartition(".")[2] for config in configs.values()}
    assert kinds == {"bi_encoder": "BiEncoder", "cross_encoder": "CrossEncoder", "colbert": "ColBERT", "splade": "Splade"}
    (teacher,) = (path for path, config in configs.items() if config["method"] == "cross_encoder")
    (tmp_path / "teacher").symlink_to(teacher)
    ok(command("train", "-m", name, "+method=rankers/distilled", "label_source.scores=teacher/model", *quick))
    (distilled,) = set(sweep.glob("*/config.yaml")) - {path / "config.yaml" for path in configs}
    assert (distilled.parent / "finished.json").is_file()
    labels = pq.read_table(distilled.parent / "labels.parquet")
    assert labels.num_rows == 24 * 8 and set(labels["source"].to_pylist()) == {"teacher"}
    assert list(metrics(distilled.parent)["retrieval"]) == ["mini.test"]


def test_a_run_has_one_folder_whatever_its_overrides_hold():
    def subdir(*overrides: str) -> str:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return str(compose("train", list(overrides), return_hydra_config=True).hydra.sweep.subdir)

    assert subdir("annotator=import", "annotator.path=/data/x.parquet") == "annotator.path=-data-x.parquet,annotator=import"
    long = [f"retriever.model={'a/b' * 100}{end}" for end in "xy"]
    names = [subdir(word) for word in long]
    assert names[0] != names[1] and all(len(name) == 200 and name.startswith("retriever.model=a-ba-b") for name in names)


def test_sweeps_outside_experiments_are_groups_of_their_own(monkeypatch: pytest.MonkeyPatch):
    def group(*overrides: str) -> str | None:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            whole = compose("train", list(overrides), return_hydra_config=True)
        monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
        HydraConfig.instance().set_config(whole)
        return OmegaConf.create({"group": "${sweep_name:}"}).group

    swept = ["hydra.mode=MULTIRUN", "seed=1", "human_frac=0.2", "store=x"]
    assert group(*swept) == "sweep of human_frac, seed"
    assert group(*swept, "hydra.sweep.dir=outputs/budgets") == "budgets"
    assert group(*swept, "+experiment=table7_human_positive") == "table7_human_positive"
    assert group("seed=1") is None


def test_a_finished_job_runs_again_where_its_config_or_a_file_of_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ran: list[Path] = []

    def task(cfg: DictConfig, folder: Path) -> float:
        ran.append(folder)
        return 0.5

    for place in ("data/qrels/train.tsv", "store/part.parquet", "labels.tsv", "own.yaml", "package/a/prompts/utilsel.yaml"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("1")
    monkeypatch.setattr(sweeps, "PACKAGE", tmp_path / "package")
    prompts = {"template": "utilsel", "answer_template": str(tmp_path / "own.yaml")}
    annotator = {"path": str(tmp_path / "labels.tsv"), **prompts}
    named = {"dataset": {"train": f"local:{tmp_path}/data:train"}, "annotator": annotator}
    cfg = OmegaConf.create({**named, "store": str(tmp_path / "store"), "name": "a", "loss": "joint"})
    folder = tmp_path / "run"
    assert [sweeps.once(task, cfg, folder) for _ in range(2)] == [0.5, 0.5] and len(ran) == 1
    cfg.name = "b"
    (tmp_path / "store" / "more.parquet").write_text("1")
    sweeps.once(task, cfg, folder)
    assert len(ran) == 1
    for place in ("data/qrels/train.tsv", "labels.tsv", "own.yaml", "package/a/prompts/utilsel.yaml"):
        (tmp_path / place).touch()
        sweeps.once(task, cfg, folder)  # nothing changed
        (tmp_path / place).write_text("12")
        sweeps.once(task, cfg, folder)
    cfg.loss = "kl"
    sweeps.once(task, cfg, folder)
    assert len(ran) == 6


@pytest.mark.parametrize(
    "options",
    [
        ("evaluate", "retriever=bm25", "baseline={}"),
        ("evaluate", "retriever=bm25", "estimate.labels={}"),
        ("annotate", "against={}"),
        ("tune", "task=pointwise", "task.labels={}"),
        ("validate", "labels=people.tsv", "runs={}*"),
    ],
)
def test_a_job_is_made_from_the_run_folders_that_it_names(options: tuple[str, ...], tmp_path: Path):
    folder = tmp_path / "run"
    write_text(folder / "labels.tsv", "1")
    cfg = of_command(*(option.format(folder) for option in options))
    first = sweeps.files_hash(cfg)
    for place in ("uar.log", ".owner", "finished.json"):
        write_text(folder / place, "1")  # as where its own job is skipped
    assert sweeps.files_hash(cfg) == first
    write_text(folder / "labels.tsv", "2")
    assert sweeps.files_hash(cfg) != first


@pytest.mark.parametrize(
    "option",
    ["base", "baseline", "annotation", "dataset.judgements", "label_source.doubted_by", "label_source.scores", "task.labels",
     "tuner.lora.adapter"],
)  # fmt: skip
def test_a_folder_that_a_job_learns_from_or_compares_with_is_one_of_its_files(tmp_path: Path, option: str):
    (tmp_path / "file.parquet").write_text("1")
    cfg = OmegaConf.create()
    OmegaConf.update(cfg, option, str(tmp_path))
    before = sweeps.files_hash(cfg)
    (tmp_path / "file.parquet").write_text("12")
    assert sweeps.files_hash(cfg) != before


QUICK = ["+experiment=table7_human_positive", "+scale=fast_dev_run"]


@pytest.mark.parametrize("later", ["+experiment=table7_human_positive", "+method=human", "+setting=msmarco"])
def test_a_scale_before_what_it_changes_is_refused(fails: Callable[..., str], later: str):
    line = fails("train", "-m", "+scale=mini", "seed=1", later)
    assert line == f"error: +scale=mini stands before {later}, which would win over it; give +scale=mini after it"
    with pytest.raises(UserError, match="give \\+scale=mini after it"):
        of_command("train", "+scale=mini", later)


def test_a_sweep_started_again_skips_what_is_done_and_runs_what_is_not(command: Command, tmp_path: Path, tiny: list[str]):
    start = ["-m", *QUICK, *tiny, "label_source.human_positive=exclude,include"]
    failed = command("train", *start, "label_source.positives=one,many")
    assert failed.returncode == 2
    listed = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(listed) == 2 and all("positives=many" in line and "allowed: one, average, all" in line for line in listed)
    assert all((tmp_path / line.split(": ")[1]).is_dir() for line in listed)

    told = ok(command("train", *start, "label_source.positives=one,all", "resume=true"))
    assert told.count("was finished before") == 2 and told.count("queries are annotated, ") == 2
    done = sorted((tmp_path / "outputs" / "table7_human_positive").glob("*/finished.json"))
    assert len(done) == 4 and {"one", "all"} == {re.search(r"positives=(one|all)", str(p))[1] for p in done}

    told = ok(command("train", *start, "label_source.positives=one", "store=elsewhere"))
    assert told.count("was finished before") == 0, "the folders are the same, the config is not"


def test_a_fault_of_one_job_does_not_stop_the_others(command: Command, tmp_path: Path, tiny: list[str]):
    """Not one that a user is told in a line either."""
    optimizers = "training.optimizer._target_=torch.optim.AdamW,builtins.dict"
    done = command("train", "-m", "+scale=fast_dev_run", "label_source=llm", *tiny, optimizers)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "builtins.dict" in line and "Traceback" in done.stdout + done.stderr
    assert len(list((tmp_path / "outputs" / "sweep").glob("*/finished.json"))) == 1


def test_joblib_runs_jobs_side_by_side_and_their_failures_are_listed(tmp_path: Path, tiny: list[str]):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    options = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "label_source.positives=one,many"]
    words = [sys.executable, str(ROOT / "train.py"), "-m", "+scale=fast_dev_run", "label_source=llm", *tiny, *options]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "positives=many" in line
    assert len(list((tmp_path / "outputs" / "sweep").glob("*/finished.json"))) == 1


def test_a_search_maximises_dev_ndcg_and_goes_on_where_it_was_stopped(command: Command, tmp_path: Path, tiny: list[str]):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    space = ["training.learning_rate=tag(log,interval(1e-5,1e-3))", "hydra/sweeper=search"]
    quick = ["+scale=fast_dev_run", "label_source=llm", "dataset.dev=mini:dev", "training.dev_queries=6", *tiny]
    ok(command("train", "-m", *quick, *space, "hydra.sweeper.n_trials=2"))
    told = ok(command("train", "-m", *quick, *space, "hydra.sweeper.n_trials=3"))
    assert told.count("was finished before") == 2
    sweep = tmp_path / "outputs" / "sweep"
    values = [json.loads(p.read_text())["returned"] for p in sweep.glob("*/finished.json")]
    dev = [next(iter(metrics(p.parent)["train"].values()))["best dev nDCG@10"] for p in sweep.glob("*/finished.json")]
    assert len(values) == 3 and sorted(values) == sorted(dev)
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(values)
