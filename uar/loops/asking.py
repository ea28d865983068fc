"""Who labels the questions of a round: people as the qrels have them judge, or an LLM."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, open_dict

from uar.annotation.annotate_run import annotate
from uar.collections import Collection
from uar.collections.people_judgements import texts_hash
from uar.errors import UserError
from uar.labels import HumanLabels, LLMLabels, MixedLabels
from uar.launch.round_config import round_config
from uar.storage.files import read_json
from uar.storage.judgement_files import write_judgements

AskPeople = Callable[[DictConfig, Path, Sequence[str], Path], int]
SIMULATED = "simulated"
WHO = (SIMULATED, "llm", "human")


def check_who(cfg: DictConfig) -> None:
    """UserError where `who` cannot be asked, or its labels are not those that are trained on."""
    if cfg.who not in WHO:
        raise UserError(f"who={cfg.who!r}; allowed: {', '.join(WHO)}")
    if cfg.who == "human" and cfg.dataset.judgements is not None:
        raise UserError("who=human: dataset.judgements= is what people say in the rounds; leave it null")
    source = hydra.utils.get_class(cfg.label_source._target_)
    wanted = (LLMLabels,) if cfg.who == "llm" else (HumanLabels, MixedLabels)
    if not issubclass(source, wanted):
        names = " or ".join(one.__name__.removesuffix("Labels").lower() for one in wanted)
        raise UserError(f"who={cfg.who}: its labels are not what label_source trains on; give label_source={names}")


def simulate_people(collection: Collection, pools: Mapping[str, Sequence[str]], file: Path) -> int:
    """Write what the qrels say of the pools as judgements of one person, as people who are shown these would make them: a
    passage that the qrels lack gets grade 0, and one that is not in the pool stays unknown. Returns their number."""
    corpus, rows = collection.corpus, []
    for query_id, doc_ids in pools.items():
        question, grades = collection.queries[query_id].text, collection.qrels.get(query_id, {})
        for doc_id, text in zip(doc_ids, corpus.texts(corpus.rows(doc_ids)), strict=True):
            grade = grades.get(doc_id, 0)
            about = {"texts": texts_hash(question, text), "who": SIMULATED, "suggestion_shown": False}
            label = int(grade >= collection.positive_grade)
            rows.append({"query_id": query_id, "doc_id": doc_id, "grade": grade, "label": label, **about})
    write_judgements(file, rows, {"positive_grade": collection.positive_grade, "collection": collection.slug})
    return len(rows)


def ask_llm(cfg: DictConfig, folder: Path, chosen: Path, number: int, left: float | None) -> tuple[int, float | None]:
    """Annotate the first `number` questions of a file; what the store holds is not asked again. Returns the pairs that have
    labels and what they cost, also what an earlier try that was stopped spent. `left`: what they may cost; None: anything."""
    before = sum(_cost(path) or 0.0 for path in folder.glob("ledger*.json"))
    if (folder / "ledger.json").is_file():  # of a try that was stopped
        os.replace(folder / "ledger.json", folder / f"ledger-{len(list(folder.glob('ledger-*.json'))) + 1}.json")
    asked = round_config(cfg, "ask", "annotate.py", "annotate", ["logger=none", "acquire=listed"])
    with open_dict(asked):
        asked.acquire.path, asked.limit = str(chosen), number
        if left is not None:
            asked.price.limit = left - before
    spent = annotate(asked, folder)
    cost: Any = spent["cost"]
    return spent["pairs"], None if cost is None else cost + before


def _cost(path: Path) -> float | None:
    found: float | None = read_json(path)["cost"]
    return found
