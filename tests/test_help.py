"""`--help` of each command, and what is said of a command line that does not compose."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import NAMES as COMMANDS
from conftest import ok

from uar.errors import UserError
from uar.launch.command_options import compose, groups_of, options_of
from uar.launch.config_reference import config_files
from uar.launch.help_page import print_help
from uar.launch.mistyped import check_given, in_words
from uar.launch.override_text import overrides_of


def of(command: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    print_help(command, words)
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_of_a_command_is_explained(command: str) -> None:
    shown = options_of(compose(command, []))
    assert [option.name for option in shown if not option.meaning] == []
    own = next(file for file in config_files() if (file.group, file.name) == ("", command))
    assert {option.name for option in own.options} <= {option.name for option in shown}


def test_the_help_of_a_command_has_its_options_alone(capsys: pytest.CaptureFixture[str]) -> None:
    train, report = of("train", ["--help"], capsys), of("report", ["-h"], capsys)
    assert re.search(r"training\.batch_size +16 +queries a step and device", train)
    assert "dry_run" not in train and "explorer.pairs" not in train
    assert re.search(r"explorer\.pairs +4 +rows that are compared, at most", report)
    assert "training.epochs" not in report and "hydra.job" not in train
    assert re.search(r"loss +summed_marginal +contrastive joint kl", train)
    assert "+experiment" in train and "table17_cost" not in of("evaluate", ["--help"], capsys)


def test_the_help_of_a_choice_has_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    given = of("annotate", ["llm=openai", "--help"], capsys)
    assert re.search(r"llm\.base_urls +needed +\[http", given) and "Options of llm=openai" in given
    assert "llm.base_urls" not in of("annotate", ["--help"], capsys)


def test_help_and_misspelt_options_are_told_by_the_command(
    command: Callable[..., subprocess.CompletedProcess[str]], fails: Callable[..., str]
) -> None:
    assert "Options of candidates=bm25" in ok(command("annotate", "--help"))
    assert "'retriver' is no option" in fails("uar.evaluate", "retriver")


def test_experiments_are_those_of_the_command() -> None:
    train, annotate = (groups_of(compose(command, []))["+experiment"] for command in ("train", "annotate"))
    assert "table2_in_domain" in train and "table1_annotators" not in train
    assert "table1_annotators" in annotate and "table2_in_domain" not in annotate


def told(command: str, *words: str) -> str:
    """What is said of a command line that Hydra does not compose, or of what it lacks."""
    try:
        check_given(compose(command, overrides_of(words)))
    except UserError as error:
        return str(error)
    except Exception as error:
        return in_words(error, command, words)
    raise AssertionError("it composes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainig.epochs=2"], "trainig.epochs: no such option of train; did you mean training.epochs?"),
        (["batch_size=8"], "did you mean training.batch_size or"),
        (
            ["label_source=lllm"],
            "label_source=lllm: no such choice; did you mean llm? Allowed: clicks, clicks_llm, curriculum,",
        ),
        (["-m", "loss=joint,contrastve"], "loss=contrastve: no such choice; did you mean contrastive?"),
        (["+experiment=tabel2"], "experiment=tabel2: no such choice; did you mean table2_in_domain?"),
        (["label_source=llm", "label_source.thresh=2"], "label_source.thresh: no such option of train"),
        (["xyzzy=1"], "xyzzy: no such option of train. --help lists"),
        (["foo"], "'foo' is no option: OPTION=VALUE is needed"),
        (["dataset.test=[1"], "'dataset.test=[1' cannot be read: text with any of"),
        (["measures=[AP(rel=2)]"], "'measures=[AP(rel=2)]' cannot be read: text with any of"),
        (["dataset=local"], "dataset.path= is needed (the folder)"),
        (["retriever=bi_encoder"], "retriever.model= is needed (a Hugging Face id"),
    ],
)
def test_what_does_not_compose_is_told_in_words(words: list[str], said: str) -> None:
    line = told("train", *words)
    assert said in line and "$" not in line and "None" not in line


@pytest.mark.parametrize("flag", ["--config-dir DIR", "--config-dir=DIR", "hydra.searchpath=[file://DIR]"])
def test_folders_of_own_configs_are_known(tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "retriever").mkdir()
    (tmp_path / "retriever" / "mine.yaml").write_text("_target_: mine.Mine\nletters: 3\n")
    words = [*flag.replace("DIR", str(tmp_path)).split(), "retriever=mine"]
    line = told("evaluate", *words, "retriever.leters=2")
    assert line.startswith("retriever.leters: no such option of evaluate; did you mean retriever.letters?")
    assert "Could not find 'retriever/min'" in told("evaluate", *words[:-1], "retriever=min")
    print_help("evaluate", [*words, "--help"])
    shown = capsys.readouterr().out
    assert "retriever.letters   3" in shown and " mine minilm " in " ".join(shown.split())
    assert "mine" not in groups_of(compose("evaluate", []))["retriever"]
    for name in ("table2_in_domain", "ours"):
        (tmp_path / "experiment").mkdir(exist_ok=True)
        (tmp_path / "experiment" / f"{name}.yaml").write_text("# @package _global_\nlimit: 3\n")
    train, annotate = (groups_of(compose(c, overrides_of(words[:-1])))["+experiment"] for c in ("train", "annotate"))
    assert "ours" in train and "ours" in annotate and "table2_in_domain" not in annotate


def test_the_help_of_ones_own_choices_has_their_meanings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (
        ("llm/ours", "_target_: mine.Ours\nplace: ???  # where it stands\n"),
        ("llm/mine", "defaults: [ours]\nwords: 9 # of its own\nmodel: small\n"),
        ("annotator/broken", "[\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    words = ["--config-dir", str(tmp_path), "llm=mine"]
    shown = of("annotate", [*words, "--help"], capsys)
    for option, value, meaning in (("words", "9", "of its own"), ("place", "needed", "where it"), ("model", "small", "name")):
        assert re.search(rf"llm\.{option} +{value} .*{meaning}", shown), option
    assert "llm.place= is needed (where it stands)" in told("annotate", *words)


def test_all_that_is_missing_is_told_at_once() -> None:
    line = told("hybrid")
    assert "collection= is needed (a reference" in line and "runs= is needed (TREC runs" in line
    line = told("annotate", "llm=openai")
    assert "llm.base_urls= is needed" in line and "llm.model= is needed" in line


def test_what_an_experiment_needs_at_another_size_is_not_missed() -> None:
    taken = compose("train", ["+experiment=table5_nq_hotpotqa", "+scale=mini"])
    check_given(taken)


def test_a_missing_option_stops_a_command_before_its_work(fails: Callable[..., str]) -> None:
    assert "texts= is needed (a folder of" in fails("uar.corpus", "out=made")
    assert "annotator.path= is needed (the file or run folder)" in fails("annotate", "annotator=import")
