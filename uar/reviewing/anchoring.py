"""What seeing an LLM's suggestion does to people's labels (arXiv 2507.15821). Who saw what was drawn at random, by question
and person, so that a difference between the two is the suggestion's doing."""

from typing import Any

import numpy as np

from uar.annotation.quality.bootstrap import estimates
from uar.annotation.quality.kappa import cohen_kappa, ratio
from uar.annotation.quality.pairs import Counts
from uar.reviewing.judged_rows import JudgedRows

ARMS = ("shown", "hidden")


def anchoring(rows: JudgedRows, resamples: int, seed: int) -> dict[str, Any] | None:
    """Of the judgements of passages that the LLM labelled; None where none was made with the suggestion in sight.

    The keys, with 95 % `intervals` by bootstrap over questions: `agrees_shown`, `agrees_hidden`, the shares of labels that
    equal the LLM's; `anchoring`, their difference; `adoption`, (shown − hidden) / (1 − hidden): the share of people's own
    judgements against the LLM that the suggestion turns, so that a person who takes it with probability a, and judges as
    without it else, has adoption a; `kappa_shown`, `kappa_hidden`, of the LLM to people (Cohen's), the first of which is too
    high by what people took over; `sure_shown`, `sure_hidden`, shares of labels that people were sure of; `time_ratio`,
    geometric mean of the seconds a label with the suggestion over that without. What is undefined is null.
    """
    there = rows.suggestion >= 0
    if not (there & rows.shown).any():
        return None
    return {
        "judgements_shown": int((there & rows.shown).sum()),
        "judgements_hidden": int((there & ~rows.shown).sum()),
        **estimates(_counts(rows, there), _measures, resamples, seed),
        "median_seconds": {arm: _median(rows.seconds[there & _arm(rows, arm)]) for arm in ARMS},
    }


def wrong_suggestions(rows: JudgedRows, gold: np.ndarray, resamples: int, seed: int) -> dict[str, Any] | None:
    """The same shares of the passages whose suggestion is wrong; `gold`: (rows,) the right label, -1 where nobody knows it.
    None where no wrong suggestion was seen. `taken_shown`, `taken_hidden`: shares of labels that are wrong as the LLM is."""
    wrong = (rows.suggestion >= 0) & (gold >= 0) & (rows.suggestion != gold)
    if not (wrong & rows.shown).any():
        return None

    def measure(sums: Counts) -> Counts:
        shown, hidden = (ratio(sums[f"agrees_{arm}"], sums[f"number_{arm}"]) for arm in ARMS)
        return {
            "taken_shown": shown,
            "taken_hidden": hidden,
            "taken_more": shown - hidden,
            "adoption": ratio(shown - hidden, 1 - hidden),
        }

    counts = {f"judgements_{arm}": int((wrong & _arm(rows, arm)).sum()) for arm in ARMS}
    return {**counts, **estimates(_counts(rows, wrong), measure, resamples, seed)}


def _arm(rows: JudgedRows, arm: str) -> np.ndarray:
    return rows.shown if arm == "shown" else ~rows.shown


def _counts(rows: JudgedRows, some: np.ndarray) -> Counts:
    """Sums a question of what the measures need, of the judgements that `some` marks."""
    ours, theirs = rows.suggestion == 1, rows.label == 1
    timed, rated = rows.seconds > 0, ~np.isnan(rows.confidence)
    values = {
        "number": np.ones(len(rows.label)),
        "agrees": ours == theirs,
        "tp": ours & theirs,
        "fp": ours & ~theirs,
        "fn": ~ours & theirs,
        "tn": ~ours & ~theirs,
        "timed": timed,
        "log_seconds": np.log(np.where(timed, rows.seconds, 1.0)),
        "rated": rated,
        "sure": np.where(rated, rows.confidence, 0.0),
    }
    kept = {f"{name}_{arm}": v * (some & _arm(rows, arm)) for arm in ARMS for name, v in values.items()}
    questions = len(rows.query_ids)
    return {name: np.bincount(rows.query, value.astype(float), minlength=questions) for name, value in kept.items()}


def _measures(sums: Counts) -> Counts:
    of = {
        arm: {
            "agrees": ratio(sums[f"agrees_{arm}"], sums[f"number_{arm}"]),
            "kappa": cohen_kappa({cell: sums[f"{cell}_{arm}"] for cell in ("tp", "fp", "fn", "tn")}),
            "sure": ratio(sums[f"sure_{arm}"], sums[f"rated_{arm}"]),
            "time": ratio(sums[f"log_seconds_{arm}"], sums[f"timed_{arm}"]),
        }
        for arm in ARMS
    }
    shown, hidden = of["shown"], of["hidden"]
    return {
        **{f"agrees_{arm}": of[arm]["agrees"] for arm in ARMS},
        "anchoring": shown["agrees"] - hidden["agrees"],
        "adoption": ratio(shown["agrees"] - hidden["agrees"], 1 - hidden["agrees"]),
        **{f"{name}_{arm}": of[arm][name] for name in ("kappa", "sure") for arm in ARMS},
        "time_ratio": np.exp(shown["time"] - hidden["time"]),
    }


def _median(seconds: np.ndarray) -> float | None:
    known = seconds[~np.isnan(seconds)]
    return round(float(np.median(known)), 2) if len(known) else None
