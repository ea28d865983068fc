"""The commands that a run prints hold all of its choices, so that they work as they are typed."""

import shlex
from pathlib import Path

import hydra
import pytest

from uar.launch.command_line import command_line
from uar.launch.entry import CONF, composed
from uar.launch.other_commands import annotate_command, train_command
from uar.launch.override_text import typed

SERVED = ["llm=openai", "llm.model=m-7", "llm.base_urls=[http://h/v1]"]


@pytest.mark.parametrize(
    "choices",
    [
        [],
        ["annotator=utilsel", *SERVED, "annotator.layout=shared_prefix"],
        ["annotator=import", "annotator.path=my labels.tsv"],
        ["annotator=ensemble", "+llm@llms.second=openai", "llms.second.model=other", "llms.second.base_urls=[http://h]"],
        ["store=else where", "seed=3", "candidates=dense", "candidates.depth=5", "candidates.retriever.query_length=16"],
        ["dataset=local", "dataset.path=A B", "dataset.train=first", "dataset.dev=null"],
        ["dataset=irds", "dataset.train=irds:beir/scifact/train", "dataset.language=de"],
    ],
)
def test_the_train_command_takes_the_labels_that_were_made(choices: list[str]) -> None:
    cfg = composed("annotate", *choices)
    _, _, module, *words = shlex.split(train_command(cfg))
    made = composed("train", *words)
    assert module == "uar.train" and "label_source=llm" in words
    for part in ("dataset", "annotator", "llm", "llms", "candidates", "seed", "store"):
        assert made[part] == cfg[part], part


def test_the_train_command_of_written_questions_names_their_folder() -> None:
    choices = ["dataset=irds", "dataset.train=irds:beir/scifact/train", "questions=generate", "annotator=relsel", *SERVED]
    cfg = composed("annotate", *choices)
    made = composed("train", *shlex.split(train_command(cfg, "my questions/own-1"))[3:])
    assert (made.dataset.path, made.dataset.train, made.dataset.dev) == ("my questions/own-1", "train", "dev")
    assert (made.annotator, made.llm) == (cfg.annotator, cfg.llm)


@pytest.mark.parametrize(("splits", "dev", "test"), [(["train"], None, []), (["dev", "train", "test"], "dev", ["test"])])
def test_the_train_command_of_written_questions_names_the_splits_that_they_have(
    splits: list[str], dev: str | None, test: list[str]
) -> None:
    cfg = composed("annotate", "dataset=local", "dataset.path=OWN", "dataset.dev=other", "questions=generate")
    made = composed("train", *shlex.split(train_command(cfg, "Q", splits))[3:])
    assert (made.dataset.path, made.dataset.dev, made.dataset.test) == ("Q", dev, test)


@pytest.mark.parametrize(
    ("splits", "dev", "test"),
    [([], None, []), (["dev", "train"], "dev", ["mini:test"]), (["test"], None, ["test", "mini:test"])],
)
def test_the_train_command_names_no_split_that_the_folder_lacks(splits: list[str], dev: str | None, test: list[str]) -> None:
    tests = "dataset.test=[test,mini:test]" if splits else "dataset.test=[test]"
    cfg = composed("annotate", "dataset=local", "dataset.path=OWN", tests)
    made = composed("train", *shlex.split(train_command(cfg, splits=splits))[3:])
    assert (made.dataset.path, made.dataset.dev, made.dataset.test) == ("OWN", dev, test)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of configs with choices whose options are none of those in conf."""
    folder = tmp_path / "own configs"
    for name, text in (
        ("annotator/mine", "_target_: mine.Mine\nneeded: 2\n"),
        ("llm/ours", "_target_: mine.Ours\nplace: here\n"),
        ("annotator/broken", "defaults: [nowhere]\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_the_commands_of_choices_of_ones_own_name_their_folder(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"hydra.searchpath=['file://{own}']"
    cfg = composed("annotate", place, "annotator=mine", "annotator.needed=3", "llm=ours", "seed=4")
    assert shlex.split(str(command_line()))[3:] == [place, "annotator=mine", "annotator.needed=3", "llm=ours", "seed=4"]
    _, _, module, *words = shlex.split(train_command(cfg))
    monkeypatch.chdir(own)
    made = composed("train", *words)
    assert module == "uar.train" and (made.annotator, made.llm, made.seed) == (cfg.annotator, cfg.llm, 4)
    further = ["+annotator@annotators.more=mine", "+llm@llms.more=ours", "llm=ours"]
    cfg = composed("train", place, *further)
    words = shlex.split(annotate_command(cfg, cfg.annotators.more, cfg.llms.more))[3:]
    made = composed("annotate", *words)
    assert (made.annotator, made.llm) == (cfg.annotators.more, cfg.llms.more)
    for options in ([place], []):  # what takes none of them needs no folder
        cfg = composed("train", *options, "limit=4")
        assert annotate_command(cfg, cfg.annotator, cfg.llm) == "python -m uar.annotate limit=4"


def test_no_secret_is_printed() -> None:
    command = train_command(composed("annotate", *SERVED, "+llm.extra.api_key=hush"))
    assert "hush" not in command and "llm=openai" in command


@pytest.mark.parametrize("path", ["plain/path-1", "with space", "0", "null", "it's", "${x}", "a=b,c", "../up"])
def test_any_folder_is_typed_so_that_it_is_read_again(path: str) -> None:
    words = shlex.split(typed("annotate", {"dataset": "local", "dataset.path": path}))
    assert words[:3] == ["python", "-m", "uar.annotate"] and composed("annotate", *words[3:]).dataset.path == path


def test_what_is_composed_for_a_command_leaves_the_running_one_as_it_is() -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("annotate", ["seed=1"])
        for _ in range(2):
            assert train_command(cfg).endswith("seed=1")
        assert hydra.compose("annotate", ["seed=2"]).seed == 2
