"""The commands that a run prints hold all of its choices, so that they work as they are typed."""

import shlex

import hydra
import pytest

from uar.launch.entry import CONF, composed
from uar.launch.other_commands import train_command
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
