"""Paths and values with the signs to which Hydra, shells and patterns give meaning."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ok
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from uar.launch.entry import CONF, composed
from uar.launch.override_text import as_typed, literal, quoted
from uar.reporting.run_folders import find_runs
from uar.storage.files import write_json

Command = Callable[..., subprocess.CompletedProcess[str]]
SIGNS = """a b,c=d[e]'f"g$h%i{j}"""
TEXTS = [
    SIGNS,
    r"a\b",
    "a\\",
    r"a\\'b",
    r"a\'b",
    "x${y}",
    r"x\${y}",
    r"x\\${y}",
    "${",
    "",
    "null",
    "1e5",
    "true",
    " a ",
    "ü\t",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_a_value_of_the_command_line_and_of_a_config(text: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("report", [f"title={quoted(text)}", "out=x"]).title == text
    kept = OmegaConf.to_yaml(OmegaConf.create(literal({"a": [{"b": text}], "n": 1})))
    assert OmegaConf.to_container(OmegaConf.create(kept), resolve=True) == {"a": [{"b": text}], "n": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("measures=[RBP(p=0.8)]", ["RBP(p=0.8)"]),
        ("measures=RBP(p=0.8)", "RBP(p=0.8)"),
        ("measures=[nDCG@10,AP(rel=2)@100, mine.Own(a=1)@5]", ["nDCG@10", "AP(rel=2)@100", "mine.Own(a=1)@5"]),
        ("measures=[nDCG(dcg='exp-log2')@10]", ["nDCG(dcg='exp-log2')@10"]),
        ('measures=["AP(rel=2)",nDCG@10]', ["AP(rel=2)", "nDCG@10"]),
        ("baseline=human, contrastive", "human, contrastive"),
        ("baseline=human_frac=0.2, llm", "human_frac=0.2, llm"),
        ("baseline=UtilSel (stand-in: Likelihood) · joint", "UtilSel (stand-in: Likelihood) · joint"),
        ("baseline='a, b'", "a, b"),
        ("baseline=null", None),
        ("runs=[a,b]", ["a", "b"]),
        ("runs=outputs/loss=kl,seed=*", "outputs/loss=kl,seed=*"),
        ("title=It's <One>, and two", "It's <One>, and two"),
    ],
)
def test_names_and_measures_are_typed_as_they_are(text: str, value: object):
    command = "evaluate" if text.startswith("measures") else "report"
    assert OmegaConf.to_container(composed(command, text))[text.partition("=")[0]] == value  # type: ignore[index,call-overload]


def test_a_sweep_keeps_its_lists_and_functions():
    words = ["-m", "baseline=a,b", "measures=choice([AP],[RR])"]
    assert as_typed("evaluate", words) == words
    assert as_typed("evaluate", ["-m", "measures=[AP(rel=2)],[RR]"]) == ["-m", "measures=['AP(rel=2)'],[RR]"]


@pytest.fixture
def signs(folder: Path) -> Path:
    """The small collection in a folder of such a name."""
    (folder.parent / "labels.tsv").write_text("q1\td1\t1\n")
    return Path(shutil.move(folder, folder.parent / SIGNS))


def test_jobs_of_a_sweep_have_such_paths(command: Command, tmp_path: Path, signs: Path):
    data = ["dataset=local", f"dataset.path={quoted(str(signs))}", "annotator=import", "annotator.path=labels.tsv"]
    ok(command("annotate", "-m", *data, "candidates.depth=2,3", "logger=none", f"hydra.sweep.dir={quoted(f'to {SIGNS}')}"))
    configs = [yaml.safe_load(path.read_text()) for path in (tmp_path / f"to {SIGNS}").glob("*/config.yaml")]
    assert [config["dataset"]["path"] for config in configs] == [str(signs)] * 2


@pytest.mark.parametrize("swept", [True, False])
def test_jobs_on_two_devices_have_such_paths_and_values(
    command: Command, tmp_path: Path, signs: Path, tiny: list[str], swept: bool
):
    data = ["dataset=local", f"dataset.path={quoted(str(signs))}", "label_source=human", "candidates.depth=4"]
    quick = ["rag=off", "logger=none", "trainer=ddp_cpu", "trainer.max_steps=1", "training.batch_size=2"]
    place = quoted(f"to {SIGNS}")
    where = ["-m", f"hydra.sweep.dir={place}"] if swept else [f"hydra.run.dir={place}"]
    ok(command("train", *where, *data, *quick, *tiny, f"hub.license={quoted('${x}')}"))
    (config,) = (tmp_path / f"to {SIGNS}").glob("*/config.yaml" if swept else "config.yaml")
    assert yaml.safe_load(config.read_text())["hub"]["license"] == "${x}" and (config.parent / "metrics.json").is_file()


def test_runs_are_found_by_such_names_and_by_patterns(tmp_path: Path):
    for name in (f"{SIGNS} 1", f"{SIGNS} 2"):
        write_json(tmp_path / name / "metrics.json", {"retrieval": {"mini.test": {"AP": 0.5}}})
        (tmp_path / name / "config.yaml").write_text("seed: 0\n")
    first = str(tmp_path / f"{SIGNS} 1")
    assert [str(run.path) for run in find_runs([first]).runs] == [first]
    assert len(find_runs([str(tmp_path / "a b*")]).runs) == 2
