"""The annotate command that makes the labels which a train run lacks, written from what the run is composed of."""

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from uar.entry import CONF
from uar.manifest import MASK, mask
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
    wanted["dataset"].pop("test", None)  # annotate.py annotates dataset.train
    wanted["dataset"].pop("dev", None)
    with _own_configs():
        usual = hydra.compose("annotate")
        shared = [f"{name}={_written(cfg[name])}" for name in SAME if cfg[name] != usual[name]]
        words = [word for group in GROUPS for word in _of_group(group, wanted[group], usual, shared)]
    given = [] if cfg.annotators else HydraConfig.get().overrides.task
    further = [o for o in given if o.startswith(("+llm@llms", "llms."))]  # of an ensemble
    return shlex.join(["python", "annotate.py", *words, *shared, *further])


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


def _of_group(group: str, wanted: Mapping[str, Any], usual: DictConfig, shared: list[str]) -> list[str]:
    """The choice of one group and the options in which the run differs from it; nothing where it is the usual one."""
    options = flat(mask(dict(wanted)), ".")
    found = []
    for path in sorted((CONF / group).glob("*.yaml")):
        try:
            composed = hydra.compose("annotate", [f"{group}={path.stem}", *shared])
        except HydraException:  # a choice for another place
            continue
        known = _plain(composed[group])
        differing = {name: value for name, value in options.items() if name not in known or known[name] != value}
        if composed[group].get("_target_") == wanted.get("_target_"):
            found.append((len(differing), path.stem, differing, known))
    if not found:
        return []
    _, choice, differing, known = min(found, key=lambda place: place[0])
    words = [] if _plain(usual[group]) == known else [f"{group}={choice}"]
    sets = {name: value for name, value in differing.items() if value != MASK}
    return words + [f"{'' if name in known else '+'}{group}.{name}={_written(value)}" for name, value in sets.items()]


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
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
