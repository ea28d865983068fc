"""The tune command: cases of a task -> rollouts and rewards -> a model that learns -> its folder, with a card."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from uar.collections import Collection, open_training_split, resolve
from uar.collections.same_questions import asked_of, tell_same
from uar.errors import UserError
from uar.retrievers.session import Session
from uar.retrievers.vector_index import ExactSearch
from uar.storage.files import read_json, write_json
from uar.storage.manifest import save_config, save_manifest
from uar.storage.ordering import rank_of
from uar.tracking.artefacts import folder_artefact
from uar.tracking.job import Job, tracked
from uar.tracking.loggers import begin_stage
from uar.tracking.stages import StageStart
from uar.tuning.base_model import BaseModel
from uar.tuning.dev_rewards import Scores, dev_rewards
from uar.tuning.resuming import TUNING, begin, settings_of
from uar.tuning.reward import Rewards
from uar.tuning.rollouts import Asked
from uar.tuning.task import Case, Task
from uar.tuning.trl_training import STATE, memory_told, whole_checkpoint
from uar.tuning.tuned_model import ADAPTER, MODEL, export, write_card
from uar.tuning.tuner import Tuner, Work
from uar.tuning.unread_options import refuse_unread

log = logging.getLogger(__name__)
NO_STEP = 1 << 40  # beyond all of them


def tune(cfg: DictConfig, folder: Path) -> float | None:
    """Tune, write `model/`, ask both models about questions of the dev split. Returns the mean reward of the tuned one; None
    where there is none."""
    if find_spec("trl") is None or find_spec("datasets") is None:
        raise UserError("TRL, which tunes, is not installed; pip install 'uar[tune]'")
    llm: dict[str, Any] = OmegaConf.to_container(cfg.llm, resolve=True)  # type: ignore[assignment]
    base = _base(cfg, llm)
    tuner: Tuner = hydra.utils.instantiate(cfg.tuner, _convert_="all")
    task: Task = hydra.utils.instantiate(cfg.task, _convert_="all")
    if HydraConfig.initialized():
        refuse_unread(cfg, HydraConfig.get().overrides.task, _choice("task"), task.idle)
    rewards = _rewards(cfg)
    split = cfg.dataset
    collection = open_training_split(
        split.train, split.path, split.positive_grade, split.answers, split.language, split.judgements, split.assisted
    )
    cases = _cases(cfg, task, collection, collection.head(cfg.limit))
    rewards.check(task, collection, cases)
    tuner.check(cases, rewards)
    settings = settings_of(cfg, collection, base, cases)
    done = begin(cfg, folder, settings)
    save_config(folder, cfg)
    save_manifest(folder, collection=collection.hash, model=base.name)
    with tracked(cfg, folder) as job, Session(ExactSearch, folder=folder) as session:
        job.facts({"cases": len(cases)})
        asked = Asked(task, collection, rewards.opened(session), llm, Path(cfg.store))
        report = _reporting(job, folder, done)
        if not done:
            drawn = asked.of(base.at_first(tuner.lora.adapter)) if tuner.needs_rewards and _is_base(llm, base) else asked
            work = Work(cases, drawn, base, folder, report, f"{base.name}+{settings[:12]}")
            with memory_told(tuner.chunk):
                export(tuner.tune(work), base, folder)
            shutil.rmtree(work.checkpoints, ignore_errors=True)
        scores = _scores(cfg, folder, asked, base, tuner.lora.adapter)
        facts = {
            "base_model": base.name,
            "task": _choice("task"),
            "tuner": _choice("tuner"),
            "trained_on": f"{len(cases)} prompts of {collection.slug}",
            "prompt": f"{cases[0].call.template} {cases[0].call.template_hash[:12]}",
        }
        for made in [MODEL, ADAPTER] if tuner.lora.rank else [MODEL]:
            write_card(folder / made, base, facts, scores)
        write_json(folder / TUNING, {"settings": settings, "done": True, **facts, "scores": scores})
        job.numbers({"dev": scores})
        if job.tracks_files:
            job.made(folder_artefact("model", f"{facts['task']}-{facts['tuner']}", folder / MODEL, ["*"]))
        log.info("The tuned model: llm=transformers llm.model=%s", folder / MODEL)
    return scores["tuned"]["reward"] if scores else None


def _base(cfg: DictConfig, llm: Mapping[str, Any]) -> BaseModel:
    if cfg.base:
        return BaseModel(cfg.base, cfg.base_revision)
    if "base_urls" in llm:
        raise UserError("llm=openai: a served model's weights cannot be tuned from here; give base=PATH_OR_ID, the same model")
    return BaseModel(llm["model"], llm.get("revision"))


def _is_base(llm: Mapping[str, Any], base: BaseModel) -> bool:
    """Whether the model that is asked is the one that learns, and no stronger one, nor one that somebody serves."""
    return "base_urls" not in llm and BaseModel(llm["model"], llm.get("revision")).name == base.name


def _rewards(cfg: DictConfig) -> Rewards:
    """The reward of `reward=`, under the name of that choice, and further ones of `rewards`, under other names."""
    first = {_choice("reward"): cfg.reward} if cfg.reward.get("_target_") else {}
    if twice := first.keys() & cfg.rewards.keys():
        raise UserError(f"rewards.{twice.pop()}: reward= has that name; give another one, as in +reward@rewards.NAME=KIND")
    return Rewards({name: hydra.utils.instantiate(part, _convert_="all") for name, part in {**first, **cfg.rewards}.items()})


def _cases(cfg: DictConfig, task: Task, collection: Collection, query_ids: Sequence[str]) -> list[Case]:
    if not task.depth:
        return task.cases(collection, dict.fromkeys(query_ids, ()))
    return task.cases(collection, hydra.utils.instantiate(cfg.candidates).pools(collection, query_ids))


def _reporting(job: Job, folder: Path, done: bool) -> Any:
    """Hands the numbers of steps, from 1 on, to the loggers; what was logged of those that are not made again stays."""
    last = whole_checkpoint(folder / "checkpoints")
    made = NO_STEP if done else int(read_json(last / STATE)["global_step"]) if last else 0
    begin_stage(job.loggers, StageStart(0, _choice("tuner"), step=made + 1))

    def report(numbers: Mapping[str, float], step: int) -> None:
        for logger in job.loggers:
            if numbers:
                logger.log_metrics({**numbers, "stage": 0.0}, step=step)
            else:
                logger.save()

    return report


def _scores(cfg: DictConfig, folder: Path, asked: Asked, base: BaseModel, adapter: str | None) -> Scores:
    """Of the dev split, by the model that learned, as it was and as it is; nothing where there is no split, or no reward."""
    split = cfg.dataset
    reference = resolve(split.dev, split.path)
    if not asked.rewards or not reference or not cfg.dev_questions:
        log.info("No scores on a dev split: they need dataset.dev, a reward, and dev_questions above 0")
        return {}
    if "base_urls" in asked.llm:
        log.info("No scores on the dev split: serve %s, and ask it with uar.evaluate", folder / MODEL)
        return {}
    dev = open_training_split(reference, None, split.positive_grade, split.answers, split.language)
    drawn = sorted(sorted(dev.queries, key=lambda q: rank_of(cfg.seed, "tuning", q))[: cfg.dev_questions])
    other = replace(asked, collection=dev)
    try:
        cases = _cases(cfg, asked.task, dev, drawn)
        asked.rewards.check(asked.task, dev, cases)
    except UserError as error:
        log.warning("No scores on the dev split: %s", error)
        return {}
    learnt = asked_of(asked.collection, asked.collection.head(cfg.limit))
    tell_same(dev, drawn, learnt, "are learnt from too, and their rewards say nothing of new questions (dataset.dev)")
    models = {"before": base.at_first(adapter), "tuned": {"model": str(folder / MODEL), "revision": None}}
    found = dev_rewards(cases, {name: other.of(options) for name, options in models.items()})
    if found["tuned"]["reward"] < found["before"]["reward"]:
        log.warning("The mean reward on %s is lower than it was before the tuning", dev.slug)
    return found


def _choice(group: str) -> str:
    """What a group was chosen as."""
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return str(chosen.get(group, group))
