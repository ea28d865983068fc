"""Commands that go with a run, written from what the run is composed of: the annotate command that makes the labels which a
train run lacks, and the train command that learns from what an annotate run made."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from uar.launch.command_options import own_configs
from uar.launch.override_text import written
from uar.launch.resolvers import CONF
from uar.storage.manifest import MASK, mask
from uar.tracking.job import flat

GROUPS = ("dataset", "candidates", "annotator", "llm")
SAME = ("store", "seed", "limit")
OF_LABELS = ("candidates", "annotator", "llm")
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
    return _command("annotate", wanted, llms, {name: cfg[name] for name in SAME})


def train_command(cfg: DictConfig, questions: str | None = None) -> str:
    """Of a composed annotate config, for its labels. `questions`: the folder of the questions that it wrote."""
    own = _plain_parts({name: cfg[name] for name in OF_LABELS})
    chosen = dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}
    if questions is None:
        own["dataset"] = _plain_parts({"dataset": cfg.dataset})["dataset"]
    words = [] if questions is None else ["dataset=local", f"dataset.path={written(questions)}"]
    same = {name: cfg[name] for name in ("store", "seed")}
    return _command("train", own, _plain_parts(cfg.llms), same, [*words, "label_source=llm"], chosen)


def _plain_parts(parts: Any) -> dict[str, Any]:
    return {name: OmegaConf.to_container(part, resolve=True) for name, part in parts.items()}


def _command(
    name: str, wanted: Choices, llms: Choices, same: Choices, first: Sequence[str] = (), chosen: Known | None = None
) -> str:
    """`llms`: further models of an ensemble."""
    with own_configs():
        usual = hydra.compose(name)
        shared = [f"{option}={written(value)}" for option, value in same.items() if value != usual[option]]
        words = list(first)
        for group in (group for group in GROUPS if group in wanted):
            choice, known, differing = _nearest(name, group, wanted[group], shared, (chosen or {}).get(group))
            words += [f"{group}={choice}"] if known != _plain(usual[group]) else []
            words += _settings(group, known, differing)
        for further, options in llms.items():
            choice, known, differing = _nearest(name, "llm", options, shared)
            words += [f"+llm@llms.{further}={choice}", *_settings(f"llms.{further}", known, differing)]
    return shlex.join(["python", "-m", f"uar.{name}", *words, *shared])


def _nearest(
    name: str, group: str, wanted: Any, shared: list[str], chosen: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The choice of a group that differs least, its options, and those in which `wanted` differs. `chosen`: what it is known
    to be."""
    options = flat(wanted, ".")
    paths = sorted((CONF / group).glob("*.yaml"))
    found = []
    for path in [path for path in paths if path.stem == chosen] or paths:
        known = _plain(hydra.compose(name, [f"{group}={path.stem}", *shared])[group])
        differing = {name: value for name, value in options.items() if name not in known or known[name] != value}
        found.append((known.get("_target_") != options.get("_target_"), len(differing), path.stem, known, differing))
    _, _, choice, known, differing = min(found, key=lambda place: place[:2])
    return choice, known, differing


def _settings(where: str, known: dict[str, Any], differing: dict[str, Any]) -> list[str]:
    """Overrides, without secrets."""
    shown = mask(differing)
    return [f"{'' if n in known else '+'}{where}.{n}={written(v)}" for n, v in shown.items() if v != MASK]


def _plain(part: DictConfig) -> dict[str, Any]:
    """Options by their paths; what is missing is `???`."""
    return flat(OmegaConf.to_container(part, resolve=True, throw_on_missing=False), ".")  # type: ignore[arg-type]
