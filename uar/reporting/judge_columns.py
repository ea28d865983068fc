"""Which measures of answers an LLM judged, how, and how many of its replies failed."""

from collections.abc import Sequence
from typing import Any

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


def judged_otherwise(rows: Sequence[Row], slug: str) -> dict[tuple[str, str], str]:
    """(slug, measure) of what not all rows have judged by the same LLM and prompts, each with a note that says so."""
    found = {}
    for measure, said in judged_of(rows, slug).items():
        hows = sorted({str(of["how"]) for of in said if of.get("how")})
        if len(hows) > 1:
            found[slug, measure] = (
                f"{slug}: {measure} is not judged alike, so nothing of it is bold or underlined: {'; '.join(hows)}"
            )
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
