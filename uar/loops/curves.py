"""Learning curves of loops: scores over the number of labelled questions, and the area under them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uar.errors import UserError
from uar.evaluation.score_files import Values, read_score_file
from uar.evaluation.significance import COLUMNS, compare, table_of
from uar.launch.small_table import log_table
from uar.storage.files import read_json

log = logging.getLogger(__name__)
ROUNDS = "rounds.json"


def area(questions: Sequence[int], values: Sequence[float]) -> float:
    """Under the curve, by the trapezoidal rule, over the span of `questions`: a mean score. Of one point that point."""
    if len(values) == 1:
        return values[0]
    steps = zip(questions, questions[1:], values, values[1:], strict=False)
    return sum((b - a) * (x + y) / 2 for a, b, x, y in steps) / (questions[-1] - questions[0])


def areas(rounds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By slug and measure, of the scores of the rounds."""
    questions = [one["questions"] for one in rounds]
    return {
        slug: {m: round(area(questions, [one["scores"][slug][m] for one in rounds]), 6) for m in values}
        for slug, values in rounds[0]["scores"].items()
    }


def log_curve(rounds: Sequence[Mapping[str, Any]], title: str) -> None:
    """A row a round, and one of the areas; a round whose training did harm has the scores of the weights from before, and a
    sign of it."""
    known = areas(rounds)
    columns = [(slug, m) for slug, of in known.items() for m in list(of)[:1]]
    names = [f"{r['round']} (untrained)" if r.get("given_kept") else str(r["round"]) for r in rounds]
    rows = [
        [name, r["questions"], r["labels"], r["cost"], r["decides"], *(r["scores"][s][m] for s, m in columns)]
        for name, r in zip(names, rounds, strict=True)
    ]
    last = ["area", None, None, None, None, *(known[s][m] for s, m in columns)]
    heads = [f"{s} {m}" for s, m in columns]
    log_table(log, title, ["round", "questions", "labels", "cost", "decides", *heads], [*rows, last])


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """Those that are done; UserError where the folder is none of a loop."""
    if not (folder / ROUNDS).is_file():
        raise UserError(f"baseline={folder}: no {ROUNDS} in it; give the folder of a loop that has ended a round")
    found: list[dict[str, Any]] = read_json(folder / ROUNDS)["rounds"]
    return found


def check_comparable(first: int, baseline: Path) -> None:
    """UserError where a loop whose first round has so many questions cannot be compared with another one's folder."""
    other = read_rounds(baseline)[0]["questions"]
    if other != first:
        raise UserError(f"baseline={baseline}: its first round has {other} questions, this one {first}; give per_round alike")


def compared(ours: Path, baseline: Path) -> dict[str, dict[str, Any]]:
    """Paired tests of the areas under the curves of the single questions, over the rounds that both loops have with as many
    labelled questions."""
    both = [read_rounds(folder) for folder in (ours, baseline)]
    check_comparable(both[0][0]["questions"], baseline)
    shared = 0
    for one, other in zip(*both, strict=False):
        if one["questions"] != other["questions"]:
            break
        shared += 1
    questions = [one["questions"] for one in both[0][:shared]]
    found = compare(_areas_by_question(ours, questions), _areas_by_question(baseline, questions))
    for slug, values in found.items():
        title = f"{slug}: area under the curve of {shared} rounds against {baseline}"
        log_table(log, title, COLUMNS, table_of(values))
    return found


def _areas_by_question(folder: Path, questions: Sequence[int]) -> dict[str, Values]:
    """By slug, measure and question of the tests."""
    found: dict[str, Values] = {}
    for path in sorted((folder / "round-1" / "scores").glob("*.parquet")):
        every = [read_score_file(folder / f"round-{n}" / "scores" / path.name) for n in range(1, len(questions) + 1)]
        found[path.stem] = {
            m: {q: area(questions, [one[m][q] for one in every]) for q in values} for m, values in every[0].items()
        }
    return found
