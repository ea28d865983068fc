"""Commands that go with a run, written from what the run is composed of: the annotate command that makes the labels which a
train run lacks, and the train command that learns from what an annotate run made."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from uar.launch.command_options import choices_of, own_configs
from uar.launch.config_folders import config_folders, named
from uar.launch.override_text import written
from uar.launch.resolvers import CONF
from uar.storage.manifest import MASK, mask
from uar.tracking.job import flat

GROUPS = ("dataset", "candidates", "annotator", "llm")
SAME = ("store", "seed", "limit")
OF_LABELS = ("candidates", "annotator", "llm")
WRITTEN = {"dev": "dev", "test": ["test"]}  # splits of a folder of written questions, as conf/dataset/local.yaml names them
Choices = Mapping[str, Any]  # by group, its options
Known = Mapping[str, str]  # by group, what the run chose, where that is known


def annotate_command(cfg: DictConfig, annotator: DictConfig, llm: DictConfig) -> str:
    """Of a composed train config, for one of its annotators and the model of that. In each group the choice is taken that lies
    nearest to what the config holds, and the rest is set option by option, so that it does not matter whether an experiment, a
    method or a sweep chose it."""
    of_run = {"dataset": cfg.dataset, "candidates": cfg.candidates, "annotator": annotator, "llm": llm}
    wanted: dict[str, Any] = {name: OmegaConf.to_container(part, resolve=True) for name, part in of_run.items()}
    wanted["dataset"].pop("test", None)  # the annotate command annotates dataset.train
    wanted["dataset"].pop("dev", None)
    llms = {} if cfg.annotators else _plain_parts(cfg.llms)
    others = {group for group, part in (("annotator", annotator), ("llm", llm)) if part != cfg[group]}
    chosen = {group: choice for group, choice in _choices().items() if group not in others}
    return _command("annotate", wanted, llms, {name: cfg[name] for name in SAME}, chosen=chosen)


def train_command(cfg: DictConfig, questions: str | None = None, splits: Collection[str] | None = None) -> str:
    """Of a composed annotate config, for its labels. `questions`: the folder of the questions that it wrote; `splits`: those
    that this folder, or that of its own questions, has, without which dev is null and nothing is scored; None: not known."""
    own = _plain_parts({name: cfg[name] for name in OF_LABELS})
    if questions is None:
        own |= _plain_parts({"dataset": cfg.dataset})
        own["dataset"] |= _lacking(own["dataset"], splits)
        words = []
    else:
        lacking = _lacking(WRITTEN, splits)
        words = ["dataset=local", f"dataset.path={written(questions)}"]
        words += [f"dataset.{name}={written(value)}" for name, value in lacking.items()]
    same = {name: cfg[name] for name in ("store", "seed")}
    return _command("train", own, _plain_parts(cfg.llms), same, [*words, "label_source=llm"], chosen=_choices())


def _lacking(dataset: Mapping[str, Any], splits: Collection[str] | None) -> dict[str, Any]:
    """What dev and test become where they name splits that the folder lacks."""
    dev, tests = dataset["dev"], dataset["test"]
    missing = {name for name in (dev, *tests) if name and ":" not in name} - set(splits) if splits is not None else set()
    found: dict[str, Any] = {"dev": None} if dev in missing else {}
    return found | ({"test": [test for test in tests if test not in missing]} if missing.intersection(tests) else {})


def _choices() -> Known:
    return dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}


def _plain_parts(parts: Any) -> dict[str, Any]:
    return {name: OmegaConf.to_container(part, resolve=True) for name, part in parts.items()}


def _command(name: str, wanted: Choices, llms: Choices, same: Choices, first: Sequence[str] = (), *, chosen: Known) -> str:
    """`llms`: further models of an ensemble. `chosen`: what of each group was probably chosen."""
    folders = config_folders()
    with own_configs():
        usual = hydra.compose(name)
        shared = [f"{option}={written(value)}" for option, value in same.items() if value != usual[option]]
        there = [*shared, *named(folders)]
        words, groups = list(first), [group for group in GROUPS if group in wanted]
        likely = {group: chosen[group] for group in groups if chosen.get(group) in choices_of(group, folders)}
        composed = hydra.compose(name, [*(f"{group}={choice}" for group, choice in likely.items()), *there])
        taken = []
        for group in groups:
            place = _place(likely[group], composed[group], wanted[group]) if group in likely else None
            if place is None or not place.fits:
                place = _nearest(name, group, wanted[group], there, folders)
            choice, known, differing = place.choice, place.known, place.differing
            words += [f"{group}={choice}"] if known != _plain(usual[group]) else []
            words += _settings(group, known, differing)
            taken.append(Path(group, choice))
        for further, options in llms.items():
            place = _nearest(name, "llm", options, there, folders)
            words += [f"+llm@llms.{further}={place.choice}", *_settings(f"llms.{further}", place.known, place.differing)]
            taken.append(Path("llm", place.choice))
    needed = [folder for folder in folders if any(_holds(folder, one) and not _holds(CONF, one) for one in taken)]
    return shlex.join(["python", "-m", f"uar.{name}", *named(needed), *words, *shared])


def _holds(folder: Path, choice: Path) -> bool:
    return (folder / choice.parent / f"{choice.name}.yaml").is_file()


@dataclass(frozen=True)
class _Place:
    """A choice of a group, its options, and those in which what is wanted differs. `other_kind`: whether it builds
    another thing; `fits`: whether it and its parts build what is wanted, so that the difference is one of values."""

    choice: str
    known: dict[str, Any]
    differing: dict[str, Any]
    other_kind: bool
    fits: bool


def _place(choice: str, part: DictConfig, wanted: Any) -> _Place:
    options, known = flat(wanted, "."), _plain(part)
    differing = {name: value for name, value in options.items() if name not in known or known[name] != value}
    built, own = ({n: v for n, v in one.items() if n.endswith("_target_")} for one in (options, known))
    return _Place(choice, known, differing, built.get("_target_") != own.get("_target_"), built == own)


def _nearest(name: str, group: str, wanted: Any, there: list[str], folders: Sequence[Path]) -> _Place:
    """The choice of a group that differs least."""
    run = {one for key, one in _choices().items() if key.partition("@")[0] == group}  # others of one's own may not compose
    names = [one for one in choices_of(group, folders) if one in run or one in choices_of(group)]
    composed = ((one, hydra.compose(name, [f"{group}={one}", *there])[group]) for one in names)
    places = [_place(choice, part, wanted) for choice, part in composed]
    return min(places, key=lambda place: (place.other_kind, len(place.differing)))


def _settings(where: str, known: dict[str, Any], differing: dict[str, Any]) -> list[str]:
    """Overrides, without secrets."""
    shown = mask(differing)
    return [f"{'' if n in known else '+'}{where}.{n}={written(v)}" for n, v in shown.items() if v != MASK]


def _plain(part: DictConfig) -> dict[str, Any]:
    """Options by their paths; what is missing is `???`."""
    return flat(OmegaConf.to_container(part, resolve=True, throw_on_missing=False), ".")  # type: ignore[arg-type]
