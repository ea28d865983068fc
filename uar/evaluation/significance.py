"""Is a run better than a baseline? Paired tests over the same queries, corrected over collections."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from uar.collections.presets import whole_sets, with_whole
from uar.errors import UserError
from uar.evaluation.rag.answer_measures import MEASURES
from uar.evaluation.score_files import Values, read_score_file

log = logging.getLogger(__name__)
PERMUTATIONS = 10_000
LEVEL = 0.05
BLOCK = 2_000_000  # sign flips that are held at once
ROUNDING = 1e-9  # of values, as a share of the largest
TESTS = ("p t-test", "p randomisation")


def read_scores(folder: Path, slug: str) -> Values:
    """Per-query values that a run folder keeps of a collection."""
    path = folder / "scores" / f"{slug}.parquet"
    if not folder.is_dir():
        raise UserError(f"baseline={folder}: no such folder; give the folder of an evaluate or train run")
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.parquet"))) or "none"
        raise UserError(f"baseline={folder}: it has no scores of {slug} (it has {known}); evaluate it on the same collections")
    return read_score_file(path)


def compare(ours: Mapping[str, Values], baseline: Mapping[str, Values], seed: int = 0) -> dict[str, dict[str, Any]]:
    """By slug and measure, over the queries that both have:

    - `queries`; `left_out`: those that only this run (`ours`) or only the baseline has
    - `difference` of the means, `low` and `high` of its 95 % interval (Student's t), `effect size`: Cohen's d of the
      differences (their mean over their standard deviation)
    - `p t-test`, `p randomisation`: two-sided paired t-test, and 10,000 random sign flips (all of them, where they are fewer),
      each also with Holm's correction over the collections (`... (Holm)`)
    - `mark`: `+` or `−` where the t-test's corrected p is below 0.05, else empty

    None where a figure is not defined, such as the t-test of one query or the interval of differences that are all the same
    and not 0. UserError where there is no query in common.

    The parts of a set that counts as one (CQADupStack) are one collection under the set's name, so that they are one test in
    the correction: the queries of all parts are paired together. Its difference is thus the mean over queries, where the row
    in metrics.json is the mean over parts.
    """
    ours, baseline = pooled(ours), pooled(baseline)
    found: dict[str, dict[str, Any]] = {slug: {} for slug in ours}
    for slug, values in ours.items():
        for measure, by_query in values.items():
            other = baseline.get(slug, {}).get(measure, {})
            shared = [q for q in by_query if q in other]
            if shared:
                left_out = {"ours": len(by_query) - len(shared), "baseline": len(other) - len(shared)}
                differences = np.array([by_query[q] for q in shared]) - np.array([other[q] for q in shared])
                found[slug][measure] = {"queries": len(shared), "left_out": left_out, **_paired(differences, seed)}
        if not found[slug]:
            raise UserError(f"{slug}: this run and the baseline have no query and measure in common; evaluate both alike")
        _log_what_is_left_out(slug, values, found[slug])
    for measure in dict.fromkeys(m for values in found.values() for m in values):
        rows = [values[measure] for values in found.values() if measure in values]
        for name in TESTS:
            defined = [row for row in rows if row[name] is not None]
            for row in rows:
                row[f"{name} (Holm)"] = None
            for row, p in zip(defined, holm([row[name] for row in defined]), strict=True):
                row[f"{name} (Holm)"] = p
        for row in rows:
            p = row["p t-test (Holm)"]
            row["mark"] = "" if p is None or p >= LEVEL else "+" if row["difference"] > 0 else "−"
    return found


def pooled(values: Mapping[str, Values]) -> dict[str, Values]:
    """Values by slug, where the parts of a set that counts as one are replaced by all their queries together, in the place of
    the first. A set of which a part is missing stays in parts."""
    found: dict[str, Values] = dict(values)
    for name, parts in whole_sets(values).items():
        together: dict[str, dict[str, float]] = {}
        for part in parts:
            for measure, by_query in values[part].items():
                together.setdefault(measure, {}).update({f"{part}/{q}": v for q, v in by_query.items()})
        found = with_whole(found, name, parts, together)
    return found


def note_untested(found: Mapping[str, Mapping[str, Any]], values: Mapping[str, Mapping[str, Any]]) -> None:
    """Say which of the `values` by slug have none a query, such as BLEU, and so no test."""
    names = {m for slug, of_slug in values.items() for m in of_slug if m in MEASURES and m not in found.get(slug, {})}
    if names:
        log.info("%s: values of all questions together, which are not tested", ", ".join(sorted(names)))


COLUMNS = ("measure", "difference", "p t-test (Holm)", "p randomisation (Holm)")


def table_of(found: Mapping[str, Any]) -> list[list[str]]:
    """One collection's comparison in `COLUMNS`: difference with its mark, and corrected p of both tests a measure."""
    return [
        [measure, f"{v['difference']:+.4f}{v['mark']}", _number(v[COLUMNS[2]]), _number(v[COLUMNS[3]])]
        for measure, v in found.items()
    ]


def _number(p: float | None) -> str:
    return "not defined" if p is None else f"{p:.3g}"


def _log_what_is_left_out(slug: str, ours: Values, found: Mapping[str, Any]) -> None:
    missing = [measure for measure in ours if measure not in found]
    if missing:
        log.warning("%s: the baseline has no %s of these queries, which is not compared", slug, ", ".join(missing))
    groups: dict[tuple[int, int, int], list[str]] = {}
    for measure, v in found.items():
        groups.setdefault((v["queries"], *v["left_out"].values()), []).append(measure)
    for (queries, only_ours, only_baseline), measures in groups.items():
        if only_ours or only_baseline:
            log.warning(
                "%s: %s compared over %d queries; %d only this run has and %d only the baseline has are left out",
                slug,
                ", ".join(measures),
                queries,
                only_ours,
                only_baseline,
            )


def _paired(differences: np.ndarray, seed: int) -> dict[str, Any]:
    mean = float(differences.mean())
    found = {"difference": mean, "low": mean, "high": mean, "effect size": 0.0, "p t-test": 1.0, "p randomisation": 1.0}
    if len(differences) == 1:
        return {**found, "low": None, "high": None, "effect size": None, "p t-test": None}
    if not differences.any():
        return found
    tests = {"p t-test": t_test(differences), "p randomisation": randomisation(differences, seed)}
    deviation = spread(differences)
    if not deviation:
        return {**found, "low": None, "high": None, "effect size": None, **tests}
    margin = float(stdtrit(len(differences) - 1, 0.975)) * deviation / math.sqrt(len(differences))
    return {**found, "low": mean - margin, "high": mean + margin, "effect size": mean / deviation, **tests}


def spread(values: np.ndarray) -> float:
    """Their standard deviation (n - 1); 0 where all are the same but for rounding, which would be a certainty of its own."""
    same = np.ptp(values) <= ROUNDING * np.abs(values).max()
    return 0.0 if same else float(values.std(ddof=1))


def t_test(differences: np.ndarray) -> float | None:
    """Two-sided p of Student's paired t-test; None where there are less than two differences. Where all n are the same, a
    t-test knows no spread and would be certain of any: p is that of n signs alike, 2 / 2^n, or 1 where they are 0."""
    n = len(differences)
    if n < 2:
        return None
    mean, error = float(differences.mean()), spread(differences) / math.sqrt(n)
    if not error:
        return 2.0 ** (1 - n) if mean else 1.0
    return 2 * float(stdtr(n - 1, -abs(mean) / error))


def randomisation(differences: np.ndarray, seed: int, permutations: int = PERMUTATIONS) -> float:
    """Two-sided p of the mean under random signs: twice the smaller tail, as `scipy.stats.permutation_test`. Where all
    sign patterns are at most `permutations`, it is exact."""
    n = len(differences)
    exact = n < 63 and 2**n <= permutations
    number = 2**n if exact else permutations
    generator = np.random.default_rng(seed)
    total = float(differences.sum())
    slack = abs(total) * np.finfo(float).eps * 100  # sums in another order differ in their last digits
    below = above = 0
    step = max(1, BLOCK // n)
    for start in range(0, number, step):
        rows = min(step, number - start)
        if exact:
            bits: np.ndarray = (np.arange(start, start + rows)[:, None] >> np.arange(n)) & 1
        else:
            bits = np.unpackbits(generator.integers(0, 256, (rows, -(-n // 8)), dtype=np.uint8), axis=1, count=n)
        sums = total - 2 * (bits.astype(np.float64) @ differences)
        below += int((sums <= total + slack).sum())
        above += int((sums >= total - slack).sum())
    added = 0 if exact else 1  # the observed signs are one pattern more
    return min(1.0, 2 * (min(below, above) + added) / (number + added))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = largest
    return corrected
