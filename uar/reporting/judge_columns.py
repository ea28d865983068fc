"""How measures of answers were judged by an LLM or computed, and how many of a judge's replies failed."""

from collections.abc import Sequence
from typing import Any

from uar.evaluation.rag.computed import read_computed
from uar.reporting.rows import AGREEMENT, JUDGED, Row

LINES = ("closed_book", "oracle")


def judged_of(rows: Sequence[Row], slug: str, part: str = JUDGED) -> dict[str, list[dict[str, Any]]]:
    """What the rows' metrics say of each judged measure under `part`, by name; `Faithfulness (oracle)` is that of a line."""
    found: dict[str, list[dict[str, Any]]] = {}
    for of_slug in (run.metrics["rag"].get(slug, {}) for row in rows for run in row.folders):
        for line in ("", *LINES):
            place = of_slug.get(line, {}) if line else of_slug
            for measure, said in place.get(part, {}).items():
                found.setdefault(f"{measure} ({line})" if line else measure, []).append(said)
    return found


def failed(measure: str) -> str:
    """The name under which a row tells the share of questions that failed of a judged measure."""
    name, _, line = measure.partition(" (")
    return f"{JUDGED}.{name}.failure_rate" + (f" ({line}" if line else "")


def made_otherwise(rows: Sequence[Row], slug: str) -> dict[tuple[str, str], str]:
    """(slug, measure) of what not all rows have judged by the same LLM and prompts, or computed alike with the same gold
    answers, each with a note that says so."""
    judged = {measure: [of.get("how") for of in said] for measure, said in judged_of(rows, slug).items()}
    computed: dict[str, list[Any]] = {}
    for how_of in (read_computed(run.path, slug) for row in rows for run in row.folders):
        for measure, how in how_of.items():
            for line in ("", *(f" ({line})" for line in LINES)):
                computed.setdefault(f"{measure}{line}", []).append(how)
    found = {}
    for verb, hows_of in (("judged", judged), ("computed", computed)):
        for measure, hows in hows_of.items():
            if len(different := sorted({str(how) for how in hows if how})) > 1:
                told = f"{slug}: {measure} is not {verb} alike, so nothing of it is bold or underlined"
                found[slug, measure] = f"{told}: {'; '.join(different)}"
    return found


def agreeing(rows: Sequence[Row], slug: str) -> list[tuple[str, str]]:
    """(what is compared, the name under which a row tells its Kendall's tau) of judged measures and those of gold answers."""
    found: dict[tuple[str, str], None] = {}
    for measure, said in judged_of(rows, slug, AGREEMENT).items():
        name, _, line = measure.partition(" (")
        tail = f" ({line}" if line else ""
        for gold in dict.fromkeys(gold for by_gold in said for gold in by_gold):
            found[f"{name}, {gold}{tail}", f"{AGREEMENT}.{name}.{gold}.tau{tail}"] = None
    return list(found)
