"""Every config composes, every module imports."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import tomllib
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from commands import NAMES as COMMANDS
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

import uar
from uar.launch.entry import composed, register_resolvers
from uar.llm.costs.ledger import Prices


def choices(command: str, groups: list[str]) -> list[tuple[str, str]]:
    return [(command, f"{g}={p.stem}") for g in groups for p in sorted((ROOT / "conf" / g).glob("*.yaml"))]


CASES = [
    *choices(
        "train",
        [
            "dataset",
            "candidates",
            "annotator",
            "llm",
            "acquire",
            "combine",
            "label_source",
            "loss",
            "retriever",
            "search",
            "workers",
            "variants",
            "expand",
            "rerank",
            "rag",
            "trainer",
            "logger",
        ],
    ),
    *choices("annotate", ["dataset", "questions", "candidates", "annotator", "llm", "acquire", "engine", "workers", "logger"]),
    *choices("evaluate", ["retriever", "search", "workers", "expand", "rerank", "rag", "logger"]),
    ("hybrid", "collection=x runs=[a.trec]"),
    ("report", "out=x"),
    ("corpus", "texts=x out=x"),
    ("dashboard", "project=x"),
    ("loop", ""),
    ("validate", "labels=x runs=x"),
    *choices("review", ["dataset", "candidates", "annotator", "llm", "acquire"]),
    *choices("tune", ["task", "reward", "tuner"]),
]


@cache
def chosen(command: str, overrides: str) -> DictConfig:
    """A composed command; one that is changed is copied before."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(command, overrides.split())


@pytest.mark.parametrize(("command", "override"), CASES)
def test_every_choice_composes_and_resolves(command: str, override: str):
    cfg = deepcopy(chosen(command, override))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        OmegaConf.set_struct(cfg, False)
        for part in ("logger", "hydra"):
            cfg.pop(part, None)  # they look at the run folder, which a composed config has not got
        cfg.name = "x"
        missing = OmegaConf.missing_keys(cfg)
        assert missing <= {
            "dataset.path",
            "dataset.train",
            "llm.model",
            "llm.base_urls",
            "retriever.model",
            "rerank.retriever.model",
            "acquire.path",
            "annotator.path",
            "label_source.path",
            "label_source.scores",
        }
        for key in missing:
            OmegaConf.update(cfg, key, "x")
        assert OmegaConf.to_container(cfg, resolve=True)


def test_every_module_imports():
    names = [m.name for m in pkgutil.walk_packages(uar.__path__, "uar.")]
    assert len(names) > 60
    for name in names:
        importlib.import_module(name)


OTHERS = {"report", "hybrid", "corpus", "dashboard", "loop", "review", "validate"}  # commands without choices of their own


def test_every_folder_of_choices_is_used_by_a_command():
    folders = {p.name for p in (ROOT / "conf").iterdir() if p.is_dir()}
    of_experiments = {"experiment", "method", "scale", "setting", "hydra"}  # see test_experiments
    within_others = {"price"}  # see test_what_asks_an_llm_has_prices
    assert folders - of_experiments - within_others == {case[1].split("=")[0] for case in CASES if case[0] not in OTHERS}


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("evaluate", "expand=keywords expand"),
        ("evaluate", "rerank=setwise rerank"),
        ("evaluate", "rag=cited rag"),
        ("train", "variants=rewrite variants"),
    ],
)
def test_what_asks_an_llm_has_prices(command: str, part: str):
    choice, _, group = part.partition(" ")
    for given in (f"{group}.price.input=0.15", f"{group}.price={{input: 0.15}}"):
        price = composed(command, choice, given)[group].price
        assert price == {"currency": "USD", "input": 0.15, "cached": None, "output": None}
        Prices(**price)


OF_CLASSES = sorted({f"{case[1].replace('=', '/')}.yaml" for case in CASES if case[0] not in OTHERS})


@pytest.mark.parametrize("path", OF_CLASSES)
def test_a_config_offers_every_option_of_what_it_builds(path: str):
    group = path.split("/")[0]
    command = (
        "evaluate"
        if path == "retriever/none.yaml"
        else "annotate"
        if group in {"annotator", "llm", "candidates", "engine", "questions"}
        else "tune"
        if group in {"task", "reward", "tuner"}
        else "train"
    )
    cfg = chosen(command, f"{group}={path.split('/')[1].removesuffix('.yaml')}")
    node = cfg.rag.get("reader", {}) if group == "rag" else cfg[group]
    target = node.get("_target_") if group not in {"dataset", "logger", "trainer", "loss"} else None
    if target:
        options = set(inspect.signature(get_object(target)).parameters)
        assert set(node) - {"_target_", "_partial_", "_recursive_", "_convert_"} == options


LOADED_WHEN_USED = ("wandb", "matplotlib", "bert_score", "faiss", "torch", "ray", "vllm", "ir_datasets", "peft", "trl")


def imported(*modules: str) -> set[str]:
    """Those of LOADED_WHEN_USED that a fresh process has loaded after importing `modules`."""
    program = f"import sys, {', '.join(modules)}; print(*set({LOADED_WHEN_USED}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=ROOT, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_a_short_module_and_a_console_script(command: str):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts[f"uar-{command}"] == f"uar.{command}:main" and len(scripts) == len(COMMANDS)
    assert callable(importlib.import_module(f"uar.{command}").main)
    if command != "evaluate":  # its parts get rooms of their own
        assert len((ROOT / "uar" / f"{command}.py").read_text().splitlines()) < 60


def test_a_command_starts_without_what_it_has_no_use_for():
    """`--help` and refusals need none of it."""
    assert not imported(*(f"uar.{command}" for command in COMMANDS))


def test_what_needs_no_model_runs_without_torch():
    assert not imported(
        "uar.annotation.annotate_run",
        "uar.reporting.report_run",
        "uar.evaluation.hybrid_test",
        "uar.evaluation.validation.validation_run",
    )


def test_help_loads_no_torch():
    words = [sys.executable, "-X", "importtime", "-m", "uar.train", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "uar.launch.entry" in loaded and not loaded & set(LOADED_WHEN_USED) and "label_source" in done.stdout


@pytest.mark.parametrize("words", [["-m", "uar.report"], [str(ROOT / "train.py")]])
def test_a_command_finds_its_configs_from_any_folder(tmp_path: Path, words: list[str]):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words, "--cfg", "job"], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert "runs: outputs" in done.stdout or "label_source:" in done.stdout


def test_training_loads_loggers_and_llms_when_they_are_used():
    assert not imported("uar.training.train_run") & {"wandb", "ir_datasets", "peft", "ray", "vllm", "bert_score"}
