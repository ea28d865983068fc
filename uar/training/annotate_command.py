"""The annotate command that makes the labels which a train run lacks, written from what the run is composed of."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from uar.launch.override_text import quoted
from uar.launch.resolvers import CONF
from uar.storage.manifest import MASK, mask
from uar.tracking.job import flat

GROUPS = ("dataset", "candidates", "annotator", "llm")
SAME = ("store", "seed", "limit")
PLAIN = re.compile(r"[A-Za-z_/][\w./:@%+-]*")
WORDS = ("null", "true", "false", "nan", "inf")  # that Hydra takes for values


def annotate_command(cfg: DictConfig, annotator: DictConfig, llm: DictConfig) -> str:
    """Of a composed train config, for one of its annotators and the model of that. In each group the choice is taken that lies
    nearest to what the config holds, and the rest is set option by option, so that it does not matter whether an experiment, a
    method or a sweep chose it."""
    of_run = {"dataset": cfg.dataset, "candidates": cfg.candidates, "annotator": annotator, "llm": llm}
    wanted: dict[str, Any] = {name: OmegaConf.to_container(part, resolve=True) for name, part in of_run.items()}
    wanted["dataset"].pop("test", None)  # the annotate command annotates dataset.train
    wanted["dataset"].pop("dev", None)
    with _own_configs():
        usual = hydra.compose("annotate")
        shared = [f"{name}={_written(cfg[name])}" for name in SAME if cfg[name] != usual[name]]
        words = []
        for group in GROUPS:
            choice, known, differing = _nearest(group, wanted[group], shared)
            words += [f"{group}={choice}"] if known != _plain(usual[group]) else []
            words += _settings(group, known, differing)
        for name, further in [] if cfg.annotators else cfg.llms.items():  # of an ensemble
            choice, known, differing = _nearest("llm", OmegaConf.to_container(further, resolve=True), shared)
            words += [f"+llm@llms.{name}={choice}", *_settings(f"llms.{name}", known, differing)]
    return shlex.join(["python", "-m", "uar.annotate", *words, *shared])


@contextmanager
def _own_configs() -> Iterator[None]:
    """Configs are those of `conf/` while the block runs: a process of a sweep's job was started on its composed one alone."""
    running = GlobalHydra.instance()
    before = running.hydra
    running.clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        running.hydra = before


def _nearest(group: str, wanted: Any, shared: list[str]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The choice of a group that differs least, its options, and those in which `wanted` differs."""
    options = flat(wanted, ".")
    found = []
    for path in sorted((CONF / group).glob("*.yaml")):
        known = _plain(hydra.compose("annotate", [f"{group}={path.stem}", *shared])[group])
        differing = {name: value for name, value in options.items() if name not in known or known[name] != value}
        found.append((known.get("_target_") != options.get("_target_"), len(differing), path.stem, known, differing))
    _, _, choice, known, differing = min(found, key=lambda place: place[:2])
    return choice, known, differing


def _settings(where: str, known: dict[str, Any], differing: dict[str, Any]) -> list[str]:
    """Overrides, without secrets."""
    shown = mask(differing)
    return [f"{'' if n in known else '+'}{where}.{n}={_written(v)}" for n, v in shown.items() if v != MASK]


def _plain(part: DictConfig) -> dict[str, Any]:
    """Options by their paths; what is missing is `???`."""
    return flat(OmegaConf.to_container(part, resolve=True, throw_on_missing=False), ".")  # type: ignore[arg-type]


def _written(value: Any) -> str:
    """As Hydra's command line reads it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    if not isinstance(value, str) or (PLAIN.fullmatch(text) and text.lower() not in WORDS):
        return text
    return quoted(text)
