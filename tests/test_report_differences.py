"""The table of differences from the baseline, over questions and over seeds."""

from pathlib import Path

import pytest
from scipy.stats import ttest_rel
from written_runs import rows_in, write_run

from uar.reporting.differences_table import differences_table
from uar.reporting.marks import marks

SLUG = "mini.test"
HUMAN = [[0.2, 0.4, 0.6], [0.3, 0.4, 0.5]]  # a list of questions a seed
LLM = [[0.5, 0.6, 0.6], [0.5, 0.6, 0.8]]


def scored(place: Path, name: str, seeds: list[list[float]], **config: object) -> None:
    for seed, values in enumerate(seeds):
        mean = {SLUG: {"nDCG@10": sum(values) / len(values), "AP": 0.5}}
        by_query = {SLUG: {"nDCG@10": {f"q{n}": value for n, value in enumerate(values)}}}
        write_run(place / f"{name}{seed}", mean, scores=by_query, method=name, seed=seed, **config)


def test_both_tests_are_of_pairs(tmp_path: Path) -> None:
    scored(tmp_path, "human", HUMAN)
    scored(tmp_path, "llm", LLM)
    scored(tmp_path, "once", LLM[:1])
    human, llm, once = rows_in(tmp_path)
    by_row = {row.name: marks(row, human, ["nDCG@10"], []) for row in (llm, once)}
    table = differences_table([human, llm, once], human, by_row)
    assert table is not None and [line.name for line in table.lines] == ["llm", "once"]
    assert [column.heading for column in table.columns] == ["difference", "low", "high", "p, questions", "p, seeds"]
    assert {column.group for column in table.columns} == {f"{SLUG}, nDCG@10"}
    means = [[sum(values) / 3 for values in run] for run in (LLM, HUMAN)]
    questions = [[sum(values) / 2 for values in zip(*run, strict=True)] for run in (LLM, HUMAN)]
    expected = [means[0][0] / 2 + means[0][1] / 2 - 0.4, ttest_rel(*questions).pvalue, ttest_rel(*means).pvalue]
    cells = [table.lines[0].cells[at].value for at in (0, 3, 4)]
    assert cells == pytest.approx(expected)
    assert [column.number(0.0000678) for column in table.columns[2:]] == ["0.0001", "6.8e-05", "6.8e-05"]
    assert table.lines[1].cells[4].value is None  # one seed
    assert len(table.notes) == 2
    single = differences_table([human, once], human, by_row)
    assert single is not None and [column.heading for column in single.columns][-1] == "p, questions"
    assert differences_table([human], human, {}) is None
