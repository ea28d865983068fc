"""The validate command: labels of people and of annotate runs -> who agrees, which differ, which may replace which."""

import logging
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from scipy.special import stdtrit
from scipy.stats import friedmanchisquare

from uar.annotation.quality.comparison import compare_pairs
from uar.annotation.quality.kappa import comparable
from uar.annotation.quality.reliability import alpha_with_interval
from uar.annotation.run_settings import run_config
from uar.errors import UserError
from uar.evaluation.validation.question_values import Measured, mean_of, measured
from uar.evaluation.validation.raters import Rated, Rater, read_raters
from uar.evaluation.validation.repeats import consistency, errors_by_doubt
from uar.evaluation.validation.replacement import among_people, check_options, constant, pairwise
from uar.launch.small_table import Cell, log_table
from uar.launch.value_kinds import one_or_several
from uar.storage.files import matching, write_json
from uar.storage.label_files import NAME
from uar.storage.labelled_pairs import TEXT
from uar.storage.manifest import save_config

log = logging.getLogger(__name__)
RESULT = "validation.json"


def validate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Write `validation.json` and print its tables. UserError for labels that cannot be compared."""
    check_options(cfg.margin, cfg.epsilon, cfg.level)
    if cfg.resamples < 1:
        raise UserError(f"resamples={cfg.resamples}: a whole number from 1 on is needed; 1000 are usual")
    people, runs = _named("labels", cfg.labels), _named("runs", cfg.runs)
    if twice := sorted(people.keys() & runs.keys()):
        runs = {f"{name} (run)" if name in twice else name: path for name, path in runs.items()}
    configs = {name: run_config(path) for name, path in runs.items() if (path / "config.yaml").is_file()}
    rated = read_raters(people, runs, cfg.positive_grade, cfg.unjudged, configs)
    values = {run.name: measured(rated, run, cfg.measure) for run in rated.runs}
    result = {
        "people": _people(rated, cfg.resamples, cfg.seed),
        "runs": {run.name: _run(rated, run, cfg) for run in rated.runs},
        "differences": _differences(values, cfg),
        **{what: _differences(levels, cfg) for what, levels in _factors(rated.runs, values).items()},
        "constant_among_people": among_people(rated, constant(rated), cfg.epsilon, cfg.level),
        "consistency": consistency(rated),
        "measure": cfg.measure,
        "positive_grade": cfg.positive_grade,
        "margin": cfg.margin,
        "epsilon": cfg.epsilon,
        "level": cfg.level,
    }
    save_config(folder, cfg)
    write_json(folder / RESULT, result)
    _log(rated, result)
    log.info("Validation: %s", folder / RESULT)
    return result


def _people(rated: Rated, resamples: int, seed: int) -> dict[str, Any]:
    pairs = [
        {"first": a.name, "second": b.name, **compare_pairs(rated.pairs(a, b), comparable(a.scale, b.scale), resamples, seed)}
        for a, b in combinations(rated.people, 2)
        if (a.known & b.known).any()
    ]
    judged = {person.name: int(person.known.sum()) for person in rated.people}
    labels = np.stack([np.where(person.known, person.label, np.nan) for person in rated.people])
    found = alpha_with_interval(labels, rated.query, False, resamples, seed)
    interval = found["intervals"].get("alpha")
    return {
        "judged": judged,
        "agreement": pairs,
        "krippendorff_alpha": found["alpha"],
        "krippendorff_alpha_interval": interval,
    }


def _run(rated: Rated, run: Rater, cfg: DictConfig) -> dict[str, Any]:
    reference = rated.majority
    graded = comparable(run.scale, reference.scale)
    return {
        **_made_by(run),
        **compare_pairs(rated.pairs(run, reference), graded, cfg.resamples, cfg.seed),
        "among_people": among_people(rated, run, cfg.epsilon, cfg.level),
        "doubt": errors_by_doubt(rated, run),
    }


def _made_by(run: Rater) -> dict[str, str | None]:
    """The run's prompt, by annotator, template and guideline, and its models; None of a file of labels."""
    if not run.config:
        return {"prompt": None, "model": None}
    llms = [run.config["llm"], *(run.config.get("llms") or {}).values()]
    return {"prompt": _prompt(run.config["annotator"]), "model": " + ".join(str(llm.get("model")) for llm in llms)}


def _prompt(options: Mapping[str, Any]) -> str:
    name = str(options.get("_target_", "")).rpartition(".")[2]
    inner = [_prompt(value) for value in options.values() if isinstance(value, Mapping) and "_target_" in value]
    own = options.get("templates") or ([options["template"]] if "template" in options else inner)
    guideline = [f"guideline {Path(options['guideline']).name}"] if options.get("guideline") else []
    return f"{name}: {', '.join([*(Path(str(one)).stem for one in own), *guideline])}" if own or guideline else name


def _factors(runs: Sequence[Rater], values: Mapping[str, Measured]) -> dict[str, dict[str, Measured]]:
    """Each prompt as a mean over models, and each model as a mean over prompts: of runs where each prompt was tried with each
    model. Of others nothing, since the mean of a prompt would tell of its models."""
    made = {run.name: _made_by(run) for run in runs}
    crossed = {(by["prompt"], by["model"]): values[name] for name, by in made.items()}
    prompts, models = (list(dict.fromkeys(by[name] for by in made.values())) for name in ("prompt", "model"))
    whole = len(made) == len(crossed) == len(prompts) * len(models)
    if None in prompts or not whole or min(len(prompts), len(models)) < 2:
        return {}
    return {
        "prompts": {str(p): mean_of([crossed[p, m] for m in models]) for p in prompts},
        "models": {str(m): mean_of([crossed[p, m] for p in prompts]) for m in models},
    }


def _differences(raters: Mapping[str, Measured], cfg: DictConfig) -> dict[str, Any]:
    """`measure`: value and 95 % interval of each; `p any differs`: Friedman's test over the questions of the pairs that all
    judged (1937, doi:10.1080/01621459.1937.10503522), None for fewer than three raters, of which their pair tells."""
    everyone = np.all([one.known for one in raters.values()], axis=0)
    columns = np.array([one.values(everyone) for one in raters.values()]) if everyone.any() else np.empty((len(raters), 0))
    columns = columns[:, ~np.isnan(columns).any(axis=0)]
    tested = len(columns) > 2 and columns.shape[1] > 1 and (columns != columns[0]).any()
    return {
        "measure": {name: _with_interval(one.values(one.known)) for name, one in raters.items()},
        "questions": int(columns.shape[1]),
        "p any differs": float(friedmanchisquare(*columns).pvalue) if tested else None,
        "pairs": pairwise(raters, cfg.margin, cfg.level, cfg.seed),
    }


def _with_interval(values: np.ndarray) -> list[float | None]:
    """Mean, and its 95 % interval by Student's t."""
    values = values[~np.isnan(values)]
    mean, n = float(values.mean()), len(values)
    half = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else None
    return [mean, *([None, None] if half is None else [mean - half, mean + half])]


def _named(option: str, given: Any) -> dict[str, Path]:
    """Files and folders by name: as given, or told apart by the last parts of their paths."""
    if OmegaConf.is_dict(given):
        return {str(name): Path(path) for name, path in given.items()}
    places = list(dict.fromkeys(place for name in one_or_several(option, given) for place in _places(option, name)))
    if not places:
        raise UserError(f"{option} names nothing; give files of labels, run folders or a pattern")
    parts = [place.with_suffix("").parts if place.suffix in (*TEXT, ".parquet") else place.parts for place in places]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return dict(zip(names, places, strict=True))
    return {str(place): place for place in places}


def _places(option: str, pattern: str) -> list[Path]:
    """Files of labels and run folders that a pattern names, or those directly below a folder that is none itself."""
    tops = matching(pattern)
    found = [place for place in tops if place.is_file() or (place / NAME).is_file()]
    folders = [top for top in tops if top.is_dir() and top not in found]
    found += [path.parent for top in folders for path in sorted(top.glob(f"*/{NAME}"))]
    if not found:
        raise UserError(
            f"{option}={pattern}: no file of labels and no folder with {NAME}; give files, run folders or a pattern"
        )
    return found


def _log(rated: Rated, result: Mapping[str, Any]) -> None:
    names = [(row, f"{row['first']} – {row['second']}") for row in result["people"]["agreement"]]
    if names:
        title = "People among each other"
        if (alpha := result["people"]["krippendorff_alpha"]) is not None:
            within = result["people"]["krippendorff_alpha_interval"]
            title += f" (Krippendorff's alpha {alpha:.3f}" + (f", {within[0]:.3f} to {within[1]:.3f})" if within else ")")
        rows: list[Sequence[Cell]] = [[name, row["pairs"], row["equal_labels"], _bounds(row, "kappa")] for row, name in names]
        log_table(log, title, ("", "pairs", "equal labels", "kappa (95 %)"), rows)
    named = [column for column in ("prompt", "model") if any(run[column] for run in result["runs"].values())]
    measure, values = str(result["measure"]).replace("_", " "), result["differences"]["measure"]
    head = ("run", *named, "pairs", measure, "kappa", "precision", "recall", "label rate")
    rows = [
        [name, *(run[column] for column in named), f"{run['pairs']:,}", _value(*values[name]), _bounds(run, "kappa"),
         run["precision"], run["recall"], run["label_rate"]]
        for name, run in result["runs"].items()
    ]  # fmt: skip
    whose = "people" if len(rated.people) > 1 else rated.people[0].name
    log_table(log, f"Against {whose}, who judged {len(rated.query_ids)} questions, with 95 % intervals", head, rows)
    for what in ("differences", "prompts", "models"):
        if result.get(what, {}).get("pairs"):
            _log_differences(what, result[what], result["margin"])
    _log_replacing(result)
    for row in result["consistency"]:
        columns = ("consistency", "accuracy where all agree", "accuracy elsewhere")
        log_table(
            log, f"Repeats: {', '.join(row['runs'])}", ("pairs", *columns), [[f"{row['pairs']:,}", *(row[c] for c in columns)]]
        )
    for name, run in result["runs"].items():
        if run["doubt"]:
            shares = " ".join(f"{tenth['errors']:.3f}" for tenth in run["doubt"]["tenths"])
            rho = run["doubt"]["spearman"]
            spearman = "" if rho is None else f"; Spearman's correlation over pairs {rho:.2f}"
            log.info("%s: share of wrong labels by tenth of doubt, the surest first: %s%s", name, shares, spearman)


def _log_differences(what: str, found: Mapping[str, Any], margin: float) -> None:
    p = found["p any differs"]
    title = f"{'Runs' if what == 'differences' else what.capitalize()} compared by question, margin {margin:g}"
    title += f" (any differs: p {p:.3g})" if p is not None else ""
    rows: list[Sequence[Cell]] = [
        [f"{row['first']} – {row['second']}", f"{row['difference']:+.3f}", _range(row["low"], row["high"]),
         _p(row["p differ (Holm)"]), _p(row["p equal (Holm)"]), row["verdict"]]
        for row in found["pairs"]
    ]  # fmt: skip
    log_table(
        log, title, ("first – second", "difference", "interval", "p differ (Holm)", "p equal (Holm)", "the first is"), rows
    )


def _log_replacing(result: Mapping[str, Any]) -> None:
    for row in result["differences"]["pairs"]:
        if row["verdict"] == "equal":
            log.info("%s and %s may replace each other (within %g)", row["first"], row["second"], result["margin"])
        elif row["verdict"] in ("better", "worse"):
            good, bad = row["first"], row["second"]
            if row["verdict"] == "worse":
                good, bad = bad, good
            log.info("%s may replace %s, not the other way round", good, bad)
    for name, run in result["runs"].items():
        test = run["among_people"]
        if test:
            may = "may replace people" if test["may_replace"] else "may not replace people"
            line = "%s %s: it is as close to the others as %.0f %% of the people are (alternative annotator test, epsilon %g)"
            log.info(line, name, may, 100 * test["winning_rate"], result["epsilon"])
    if (lazy := result["constant_among_people"]) and lazy["may_replace"]:
        log.warning(
            "An annotator that gives each passage the commoner label would pass that test too, as the other one is rare: go "
            "by kappa and balanced accuracy"
        )


def _bounds(row: Mapping[str, Any], name: str) -> str | None:
    if row[name] is None:
        return None
    return _value(row[name], *row["intervals"].get(name, (None, None)))


def _value(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3f}" if low is None else f"{value:.3f} {_range(low, high)}"


def _range(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"({low:.3f} to {high:.3f})"


def _p(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"
