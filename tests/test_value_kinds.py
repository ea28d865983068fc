"""Values that an option cannot take, and places that cannot be written, are refused in one line, whatever the command."""

import errno
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from commands import NAMES
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from uar.errors import UserError
from uar.launch.command_options import Taken, options_of
from uar.launch.entry import CONF, composed
from uar.launch.one_line import one_line
from uar.launch.value_kinds import OPTIONAL, check_types, one_or_several

KINDS = [  # command, option, whether its value is of a kind that it takes
    ("train", "trainer.devices=2", True),
    ("train", "trainer.devices=[0,1]", True),
    ("train", "trainer.devices=[a]", False),
    ("train", "trainer.devices=1.5", False),
    ("train", "human_frac=null", True),
    ("train", "retriever.layers=null", True),
    ("evaluate", "retriever=minilm_l3 retriever.layers=null", True),
    ("train", "acquire=idds acquire.retriever.layers=null", True),
    ("train", "retriever.dropout=null", True),
    ("train", "trainer.gradient_clip_val=null", True),
    ("train", "candidates.depth=null", False),
    ("train", "seed=null", False),
    ("train", "seed=-1", False),
    ("train", "training.warmup=-0.1", False),
    ("train", "trainer.devices=-1", True),
    ("train", "trainer.max_steps=-1", True),
    ("tune", "dev_questions=-1", False),
    ("loop", "human_judgement=-1", False),
    ("train", "dataset.test=mini:test", True),
    ("train", "dataset.test=5", False),
    ("train", "measures=null", False),
    ("train", "measures=[5]", False),
    ("evaluate", "perturb=null", True),
    ("evaluate", "collections=5", False),
    ("review", "shared=null", False),
    ("review", "limit=null", True),
    ("corpus", "near_copy=null", True),
    ("corpus", "words=null", False),
    ("evaluate", "rag=default rag.limit=null", True),
    ("evaluate", "rag=default rag.top_k=null", False),
]


@pytest.mark.parametrize(("name", "option", "fits"), KINDS)
def test_a_value_is_of_the_kind_that_the_option_takes(name: str, option: str, fits: bool) -> None:
    cfg = composed(name, *option.split())
    told = nullcontext() if fits else pytest.raises(UserError, match=f"{option.split()[-1].partition('=')[0]}=.* is needed")
    with initialize_config_dir(str(CONF), version_base="1.3"), told:
        check_types(Taken(name, cfg, HydraConfig.get().runtime.choices))


@pytest.mark.parametrize("name", NAMES)
def test_what_may_be_null_says_so_and_the_other_options_of_no_class_do_not(name: str) -> None:
    cfg = composed(name, *(["rag=default"] if name == "evaluate" else []))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        options = options_of(Taken(name, cfg, HydraConfig.get().runtime.choices))
    numbers = [o for o in options if type(o.value) in (bool, int, float) and not of_class(cfg, o.name)]
    assert {o.name for o in numbers if "null" in o.meaning} == OPTIONAL & {o.name for o in numbers}


def of_class(cfg: DictConfig, option: str) -> bool:
    """Whether it is an argument of one."""
    place = option.rpartition(".")[0]
    return OmegaConf.select(cfg, f"{place}._target_" if place else "_target_", throw_on_missing=False) is not None


def test_an_option_of_one_or_several_names_takes_no_other_thing() -> None:
    assert one_or_several("runs", "a") == ["a"] and one_or_several("runs", ["a", 5]) == ["a", "5"]
    for given in (None, 1.5, True, {"a": "b"}, ["a", None]):
        with pytest.raises(UserError, match="runs=.*: a name or a list of names is needed"):
            one_or_several("runs", given)


@pytest.mark.parametrize("options", [["export=csv", "limit=2", "out=taken"], ["report=judged.parquet", "out=taken/below"]])
def test_a_file_where_a_folder_is_wanted_is_named(fails: Callable[..., str], tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "taken").write_text("a file")
    error = fails("uar.review", *options)
    assert "taken" in error and "cannot be written or read" in error and "out=" in error
    assert (tmp_path / "taken").read_text() == "a file"


def test_what_was_raised_while_a_place_was_looked_at_is_no_fault_of_the_place() -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "/a/b")
    assert one_line(refused) == (
        "/a/b cannot be written or read (Permission denied); give a folder that can be (hydra.run.dir=, out=, store=), or "
        "mend its permissions"
    )
    caused, meanwhile = RuntimeError("x"), RuntimeError("x")
    caused.__cause__, meanwhile.__context__ = refused, refused
    assert one_line(caused) == one_line(refused) and one_line(meanwhile) is None
