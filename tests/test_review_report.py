"""Agreement of people, and what suggestions do to them, by hand and with simulated people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uar.errors import DataError, UserError
from uar.launch.entry import composed
from uar.reviewing.agreement_so_far import equal_share
from uar.reviewing.anchoring import anchoring
from uar.reviewing.judged_rows import JudgedRows, judged_rows
from uar.reviewing.people_agreement import people_agreement
from uar.reviewing.review_report import review_report
from uar.storage.judgement_files import NAME, read_judgements, write_judgements

ADOPTION = 0.3


def row(
    q: str, d: str, who: str, grade: int, shown: bool = False, suggestion: int | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "query_id": q,
        "doc_id": d,
        "who": who,
        "grade": grade,
        "suggestion_shown": shown,
        "suggestion": suggestion,
        **more,
    }


def write(folder: Path, rows: list[dict[str, Any]], positive_grade: int = 1) -> Path:
    write_judgements(folder / NAME, rows, {"positive_grade": positive_grade})
    return folder


def simulated(seed: int, adoption: float = ADOPTION, questions: int = 300, pool: int = 6) -> JudgedRows:
    """Two people who are right in 0.85, an LLM that is right in 0.7; who sees a suggestion takes it with `adoption`, else
    judges as without it."""
    rng = np.random.default_rng(seed)
    pairs = questions * pool
    truth = rng.random(pairs) < 0.3
    llm = np.where(rng.random(pairs) < 0.7, truth, ~truth)
    parts = []
    for who in range(2):
        own = np.where(rng.random(pairs) < 0.85, truth, ~truth)
        shown = np.repeat(rng.random(questions) < 0.5, pool)
        parts.append((np.full(pairs, who), shown, np.where(shown & (rng.random(pairs) < adoption), llm, own)))
    person, shown, label = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    number, query = np.arange(pairs), np.repeat(np.arange(questions), pool)
    return JudgedRows(
        query_ids=[str(q) for q in range(questions)],
        people=["ann", "bob"],
        query=np.tile(query, 2),
        passage=np.tile(number, 2),
        person=person,
        label=label.astype(np.int64),
        grade=label.astype(np.int64),
        shown=shown,
        suggestion=np.tile(llm, 2).astype(np.int64),
        seconds=np.where(shown, 4.0, 8.0),
        confidence=np.ones(2 * pairs),
    )


def test_the_interval_of_adoption_holds_the_truth() -> None:
    found = anchoring(simulated(0), resamples=1_000, seed=0)
    assert found is not None
    low, high = found["intervals"]["adoption"]
    assert low <= ADOPTION <= high and high - low < 0.2
    assert found["anchoring"] == pytest.approx(found["agrees_shown"] - found["agrees_hidden"])
    assert found["kappa_shown"] > found["kappa_hidden"], "what people take over makes the LLM look better"
    assert found["time_ratio"] == pytest.approx(0.5) and found["median_seconds"] == {"shown": 4.0, "hidden": 8.0}


def test_the_intervals_keep_their_level() -> None:
    """Of 100 simulated reviews a 95 % interval holds the truth in 95 at most chance; fewer than 88 happen once in 500."""
    held = 0
    for seed in range(100):
        found = anchoring(simulated(seed, questions=80), resamples=300, seed=seed)
        low, high = found["intervals"]["adoption"]
        held += low <= ADOPTION <= high
    assert held >= 88


def test_who_takes_no_suggestion_over_has_no_anchoring() -> None:
    low, high = anchoring(simulated(3, adoption=0.0), resamples=500, seed=0)["intervals"]["anchoring"]
    assert low <= 0 <= high
    rows = simulated(3)
    assert anchoring(rows.of(~rows.shown), resamples=10, seed=0) is None


def test_shares_by_hand() -> None:
    known = np.array([[True, True, True], [True, True, False], [True, False, False]])
    labels = np.array([[True, True, True], [False, True, True], [True, True, True]])
    assert equal_share(labels, known) == pytest.approx((2 + 2) / (6 + 2))


def test_agreement_of_two_people_by_hand(tmp_path: Path) -> None:
    """Equal in three of four; p_e = (2·1 + 2·3)/16 = 1/2, kappa = (3/4 - 1/2)/(1/2) = 1/2. What was seen is no agreement."""
    given = {"ann": [1, 1, 0, 0], "bob": [1, 0, 0, 0]}
    rows = [row(f"q{n}", "d", who, grade) for who, grades in given.items() for n, grade in enumerate(grades)]
    rows += [row(f"q{n}", "other", who, 1, shown=True, suggestion=1) for who in given for n in range(4)]
    table = read_judgements(write(tmp_path, rows)).table
    of = judged_rows(table, 1)
    found = people_agreement(of.of(~of.shown), resamples=200, seed=0)
    assert found["passages"] == 4 and found["equal_labels"] == 0.75
    (pair,) = found["pairs"]
    assert (
        pair["people"] == ["ann", "bob"]
        and pair["kappa"] == pytest.approx(0.5)
        and pair["weighted_kappa"] == pytest.approx(0.5)
    )
    low, high = pair["intervals"]["kappa"]
    assert low <= 0.5 <= high


def test_a_report_counts_wrong_suggestions_by_what_others_said_or_by_gold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = []
    for n in range(40):
        rows.append(row(f"q{n}", "d", "bob", 0))  # who sees none knows better
        rows.append(
            row(f"q{n}", "d", "ann", int(n % 4 == 0), shown=n < 20, suggestion=1, seconds=2.0, confidence=float(n % 2))
        )
    found = review_report([write(tmp_path / "r", rows)], tmp_path / "out", None, None, 0)
    wrong = found["wrong_suggestions"]
    assert (wrong["judgements_shown"], wrong["judgements_hidden"]) == (20, 20)
    assert wrong["taken_shown"] == wrong["taken_hidden"] == 0.25 and wrong["taken_more"] == 0
    assert json.loads((tmp_path / "out" / "review_report.json").read_text()) == found
    assert found["people"][0] == {
        "who": "bob", "judgements": 40, "median_seconds": None, "positive": 0.0, "unsure": None, "suggestion_shown": 0.0,
    }  # fmt: skip
    gold = tmp_path / "gold.tsv"
    gold.write_text("".join(f"q{n}\td\t{int(n >= 10)}\n" for n in range(40)))
    assert review_report([tmp_path / "r"], tmp_path, gold, None, 0)["wrong_suggestions"]["judgements_shown"] == 10
    assert review_report([tmp_path / "r"], tmp_path, gold, 2, 0)["wrong_suggestions"]["judgements_shown"] == 20
    assert "What wrong suggestions do: of fewer than 30 judgements on either side little can be said" in caplog.text
    graded = pa.table({"query_id": [f"q{n}" for n in range(40)], "doc_id": ["d"] * 40, "label": [1] * 40, "grade": [1] * 40})
    pq.write_table(graded, tmp_path / "gold.parquet")  # an LLM's labels, of grades from 1 up
    assert review_report([tmp_path / "r"], tmp_path, tmp_path / "gold.parquet", None, 0)["wrong_suggestions"] is None
    strict = review_report([tmp_path / "r"], tmp_path, tmp_path / "gold.parquet", 2, 0)
    assert strict["wrong_suggestions"]["judgements_shown"] == 20
    gold.write_text("other\td\t1\n")
    with pytest.raises(UserError, match="no label of any passage that was judged"):
        review_report([tmp_path / "r"], tmp_path, gold, None, 0)


def test_a_report_lies_beside_the_first_of_the_judgements_that_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("kept"), [row("q", "d", "ann", 1)])
    out = {given: composed("review", f"report={given}").out for given in ("kept", f"kept/{NAME}", "[kept,other]", "mistyped")}
    assert out == {"kept": "kept", f"kept/{NAME}": "kept", "[kept,other]": "kept", "mistyped": "outputs/review"}
    assert composed("review").out == "outputs/review" and composed("review", "report=kept", "out=own").out == "own"


FAULTS: Mapping[str, tuple[list[dict[str, Any]], str]] = {
    "nothing": ([], "no judgements yet"),
    "twice": ([row("q", "d", "ann", 1), row("q", "d", "ann", 0)], "a person judged a passage in two of the files"),
    "no grade": ([row("q", "d", "ann", None)], "no value under 'grade'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_file_is_one_line(name: str, tmp_path: Path) -> None:
    rows, told = FAULTS[name]
    with pytest.raises((UserError, DataError), match=told):
        review_report([write(tmp_path, rows)], tmp_path, None, None, 0)
    (tmp_path / NAME).write_bytes(b"PAR1 broken")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        review_report([tmp_path], tmp_path, None, None, 0)
    with pytest.raises(DataError, match="no such file; give a file of judgements"):
        review_report([tmp_path / "none"], tmp_path, None, None, 0)


def test_files_of_different_reviews_are_not_compared(tmp_path: Path) -> None:
    one = write(tmp_path / "a", [row("q1", "d1", "ann", 1, texts="t1")])
    same = write(tmp_path / "b", [row("q1", "d1", "bob", 1, texts="t1")])
    assert review_report([one, same], tmp_path, None, None, 0)["agreement"]["passages"] == 1
    other = write(tmp_path / "c", [row("q1", "d1", "bob", 1, texts="t2")])
    with pytest.raises(UserError, match="passage 'd1' of question 'q1' is not the same text in all files"):
        review_report([one, other], tmp_path, None, None, 0)
    nobody = write(tmp_path / "d", [row("q1", "d1", "bob", 1) | {"who": None}])
    with pytest.raises(DataError, match="it does not say who judged"):
        review_report([nobody], tmp_path, None, None, 0)
    with pytest.raises(UserError, match="no judgements yet"):
        review_report([], tmp_path, None, None, 0)
