"""The loop command: rounds, each in a folder of its own, until one of the reasons to stop."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from uar.acquisition import Acquisition, AcquisitionContext
from uar.collections import Collection, open_training_split
from uar.collections.presets import averaged
from uar.errors import UserError
from uar.evaluation.metrics_file import given_kept, read_metrics
from uar.launch.side_by_side import several_devices
from uar.loops.asking import AskPeople, ask_llm, check_who, simulate_people
from uar.loops.curves import ROUNDS, areas, check_comparable, compared, log_curve
from uar.storage.files import digest, read_json, write_json, write_jsonl
from uar.storage.judgement_files import NAME as PEOPLE
from uar.storage.judgement_files import read_judgements
from uar.storage.manifest import save_config
from uar.training.context import label_context
from uar.training.lent import IDENTITY
from uar.training.train_run import objective, train

log = logging.getLogger(__name__)
FREE = (
    "rounds",
    "stop",
    "baseline",
    "name",
    "resume",
    "logger",
    "hub",
    "review",
)  # of the options: what may change when a loop goes on


def loop(cfg: DictConfig, folder: Path, ask_people: AskPeople | None = None) -> float | None:
    """Write `rounds.json` and a folder a round; return what decides of the last one. A round that is done is not made again,
    one that was stopped goes on: with its questions, the store and the checkpoints. `ask_people`: has people judge
    questions, where who=human: (options, folder of the loop, questions, file that gets all judgements) -> their number."""
    check_who(cfg)
    if cfg.who == "human" and ask_people is None:
        raise UserError("who=human: loop() from Python needs ask_people=, such as uar.reviewing.round_review.ask_people")
    for name in ("rounds", "per_round"):
        if cfg[name] < 1:
            raise UserError(f"{name}={cfg[name]}: at least 1 is needed")
    if cfg.choose_with not in ("last", "given"):
        raise UserError(f"choose_with={cfg.choose_with!r}; allowed: last, given")
    if cfg.stop.patience is not None and cfg.stop.patience < 1:
        raise UserError(f"stop.patience={cfg.stop.patience}: at least 1 round is needed, or null for not that reason")
    if cfg.who != "llm" and cfg.human_frac is not None:
        log.warning("human_frac=%s has no effect: a round trains on the labels of all questions so far", cfg.human_frac)
    if several_devices(cfg):
        raise UserError("uar.loop trains in one process; give trainer.devices=1")
    split = cfg.dataset
    collection = open_training_split(
        split.train, split.path, split.positive_grade, split.answers, split.language, split.judgements, split.assisted
    )
    chooses_from = _questions(cfg, collection)
    rounds = _kept(cfg, folder, collection)
    if cfg.baseline:
        check_comparable(_before(rounds[:1]) or min(cfg.per_round, len(chooses_from)), Path(cfg.baseline))
    save_config(folder, cfg)
    chosen = _chosen(folder, len(rounds))
    while not (why := _stops(cfg, rounds, len(chooses_from) - len(chosen))):
        here = folder / f"round-{len(rounds) + 1}"
        chosen = _choose(cfg, here, collection, chooses_from, chosen)
        labelled = _labelled(cfg, here, collection, chosen, rounds, ask_people)
        if cfg.who == "simulated" and (why := _too_dear(cfg, rounds, labelled[1])):
            break
        rounds.append(_round(cfg, here, chosen, rounds, labelled))
        write_json(folder / ROUNDS, {"settings": _settings(cfg, collection), "rounds": rounds})
    if not rounds:
        raise UserError(f"no round was made: {why}")
    log.info("Stopped: %s", why)
    log_curve(rounds, f"Learning curve: {folder}")
    result: dict[str, Any] = {"area": areas(rounds), "stopped": why}
    if cfg.baseline:
        result["against"] = compared(folder, Path(cfg.baseline))
    write_json(folder / "curve.json", result)
    decides: float | None = rounds[-1]["decides"]
    return decides


def _questions(cfg: DictConfig, collection: Collection) -> list[str]:
    """Those to choose from: where people label, those that have a positive of theirs."""
    query_ids = collection.head(cfg.limit)
    if cfg.who == "simulated":
        query_ids = collection.by_people(q for q in query_ids if collection.trainable(q))
    if not query_ids:
        raise UserError(f"{collection.reference}: no question with a positive by people; use who=human, or who=llm")
    return query_ids


def _settings(cfg: DictConfig, collection: Collection) -> str:
    kept = {name: node for name, node in cfg.items() if name not in FREE}
    plain = {n: OmegaConf.to_container(x, resolve=True) if OmegaConf.is_config(x) else x for n, x in kept.items()}
    return digest(collection.hash, plain)


def _kept(cfg: DictConfig, folder: Path, collection: Collection) -> list[dict[str, Any]]:
    """The rounds that are done; UserError where they were made with other options."""
    if not (folder / ROUNDS).is_file():
        return []
    kept = read_json(folder / ROUNDS)
    if kept["settings"] != _settings(cfg, collection):
        raise UserError(
            f"{folder}: its rounds were made with other options or another collection; give the command of then (only "
            f"{', '.join(FREE)} may change), or another hydra.run.dir="
        )
    rounds: list[dict[str, Any]] = kept["rounds"][: cfg.rounds]
    log.info("%s: %d rounds are done already", folder, len(rounds))
    return rounds


def _chosen(folder: Path, number: int) -> list[str]:
    """The questions that are labelled after so many rounds."""
    path = folder / f"round-{number}" / "chosen.json"
    return list(read_json(path)) if number else []


def _choose(
    cfg: DictConfig, here: Path, collection: Collection, chooses_from: Sequence[str], labelled: Sequence[str]
) -> list[str]:
    """The labelled questions and those of this round, in the order chosen; kept in the round's folder."""
    path = here / "chosen.json"
    if not path.is_file():
        own = _with_last_model(cfg, here)
        context = label_context(own, collection, hydra.utils.instantiate(own.candidates), here, [])
        pools = context.unaware if cfg.who == "simulated" else context.pools
        acquire: Acquisition = hydra.utils.instantiate(own.acquire, _convert_="all")
        asked = AcquisitionContext(
            chooses_from, cfg.seed, frozenset(labelled), context.judgements, pools, collection, cfg.per_round
        )
        write_json(path, [*labelled, *acquire.order(asked)[: cfg.per_round]])
    found = list(read_json(path))
    write_jsonl(here / "chosen.jsonl", ({"query_id": q} for q in found))
    return found


def _with_last_model(cfg: DictConfig, here: Path) -> DictConfig:
    number = int(here.name.rpartition("-")[2])
    own = deepcopy(cfg)
    if cfg.choose_with == "last" and number > 1 and "retriever" in own.acquire:
        own.acquire.retriever.model = str(here.parent / f"round-{number - 1}" / "model")
        if "layers" in own.acquire.retriever:
            own.acquire.retriever.layers = None
    return own


def _labelled(
    cfg: DictConfig,
    here: Path,
    collection: Collection,
    chosen: Sequence[str],
    rounds: Sequence[dict[str, Any]],
    ask_people: AskPeople | None,
) -> tuple[int, float | None]:
    """Have the chosen questions labelled; the number of labels and the cost, of all rounds."""
    log.info("Round %d: %d questions to label, %d of them new", len(rounds) + 1, len(chosen), len(chosen) - _before(rounds))
    if cfg.who == "llm":
        return _asked(cfg, here, len(chosen), rounds)
    if (here / PEOPLE).is_file():  # the round was stopped after they had judged
        labels = len(read_judgements(here / PEOPLE).table)
    elif ask_people is None:
        pools = label_context(cfg, collection, hydra.utils.instantiate(cfg.candidates), here, []).unaware(chosen)
        labels = simulate_people(collection, {q: pools.get(q, ()) for q in chosen}, here / PEOPLE)
    else:
        labels = ask_people(cfg, here.parent, chosen, here / PEOPLE)
    return labels, labels * cfg.human_judgement


def _round(
    cfg: DictConfig,
    here: Path,
    chosen: Sequence[str],
    rounds: Sequence[dict[str, Any]],
    labelled: tuple[int, float | None],
) -> dict[str, Any]:
    """Train on all that is labelled, and score."""
    own = deepcopy(cfg)
    with open_dict(own):
        own.acquire = {"_target_": "uar.acquisition.ListedAcquisition", "path": str(here / "chosen.jsonl")}
        own.resume = (here / IDENTITY).is_file()
        if cfg.who == "llm":
            own.annotation = str(here / "annotate")
        else:
            own.dataset.judgements, own.human_frac = str(here / PEOPLE), 1.0
    labels, cost = labelled
    train(own, here)
    metrics = read_metrics(here)
    decides = objective(metrics["train"], averaged(metrics["retrieval"]))
    return {
        "round": len(rounds) + 1,
        "questions": len(chosen),
        "labels": labels,
        "cost": None if cost is None else round(cost, 6),
        "decides": decides,
        "given_kept": bool(given_kept(metrics["train"])),
        "scores": metrics["retrieval"],
    }


def _asked(cfg: DictConfig, here: Path, number: int, rounds: Sequence[dict[str, Any]]) -> tuple[int, float | None]:
    """Labelled pairs and the cost of all rounds; an LLM is asked once a round, however often that is stopped afterwards."""
    path = here / "asked.json"
    if not path.is_file():
        left = None if cfg.stop.cost is None else cfg.stop.cost - _cost(rounds)
        labels, cost = ask_llm(cfg, here / "annotate", here / "chosen.jsonl", number, left)
        write_json(path, {"labels": labels, "cost": None if cost is None else cost + _cost(rounds)})
    asked = read_json(path)
    return asked["labels"], asked["cost"]


def _before(rounds: Sequence[dict[str, Any]]) -> int:
    return rounds[-1]["questions"] if rounds else 0


def _cost(rounds: Sequence[dict[str, Any]]) -> float:
    return (rounds[-1]["cost"] or 0.0) if rounds else 0.0


def _too_dear(cfg: DictConfig, rounds: Sequence[dict[str, Any]], cost: float | None) -> str:
    if cfg.stop.cost is None or cost is None or cost <= cfg.stop.cost:
        return ""
    return f"{_cost(rounds):.4g} are spent, and the next round would make it {cost:.4g} (stop.cost={cfg.stop.cost:g})"


def _stops(cfg: DictConfig, rounds: Sequence[dict[str, Any]], left: int) -> str:
    """Why no further round is made; empty where one is. `left`: questions without a label."""
    stop, scores = cfg.stop, [one["decides"] for one in rounds if one["decides"] is not None]
    if len(rounds) >= cfg.rounds:
        return f"rounds={cfg.rounds} are done"
    if not left:
        return "all questions are labelled"
    if stop.questions is not None and _before(rounds) >= stop.questions:
        return f"{_before(rounds)} questions are labelled (stop.questions={stop.questions})"
    if stop.cost is not None and _cost(rounds) >= stop.cost:
        return f"{_cost(rounds):.4g} are spent (stop.cost={stop.cost:g})"
    if stop.target is not None and scores and scores[-1] >= stop.target:
        return f"what decides is {scores[-1]:.4f} (stop.target={stop.target:g})"
    if stop.patience is not None and len(scores) > stop.patience:
        best = max(scores[: -stop.patience])
        if max(scores[-stop.patience :]) < best + stop.gain:
            return f"{stop.patience} rounds without a gain of {stop.gain:g} over {best:.4f} (stop.patience={stop.patience})"
    return ""
