"""Rows, tables and marks of a report, over run folders written by hand."""

import itertools
import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_experiments import OF_ANNOTATE, composed, sweep_of
from written_runs import labels, write_run

from uar.errors import UserError
from uar.reporting.marks import marks
from uar.reporting.paper_table import asked_for, names, paper_table, read_paper
from uar.reporting.rows import Row, find_row, rows_of
from uar.reporting.runs import find_runs
from uar.reporting.table import Column, Line, Table, cell, placed, score_table
from uar.reporting.text import latex, markdown

SCORE = {"mini.test": {"nDCG@10": 0.5, "AP": 0.25}}


def rows_in(tmp_path: Path, pattern: str = "*") -> list[Row]:
    return rows_of(find_runs([str(tmp_path / pattern)]).runs)


def scored(value: float) -> dict:
    return {"mini.test": {"nDCG@10": value}}


def test_runs_that_differ_in_their_seed_alone_are_one_row(tmp_path: Path):
    for seed, value in ((0, 0.4), (1, 0.5), (2, 0.6)):
        sampled = {"seed": seed, "candidates__seed": seed, "logger__csv__folder": f"run-{seed}", "loss": "joint"}
        write_run(tmp_path / f"loss=joint,seed={seed}", scored(value), **sampled)
    write_run(tmp_path / "loss=kl,seed=0", scored(0.3), loss="kl")
    rows = rows_in(tmp_path)
    assert [(row.name, len(row.seeds)) for row in rows] == [("joint", 3), ("kl", 1)]
    table = score_table("retrieval", "Retrieval", rows, "retrieval", {})
    assert table is not None
    told = [[c.number(col) + c.spread(col) for c, col in zip(line.cells, table.columns, strict=True)] for line in table.lines]
    assert told == [["0.500 ± 0.100 (3)"], ["0.300"]]


def test_the_same_seed_twice_is_two_rows(tmp_path: Path):
    for name in ("a", "b"):
        write_run(tmp_path / name, SCORE, loss="joint")
    assert [row.name for row in rows_in(tmp_path)] == ["a", "b"]


def test_other_configs_are_other_rows_even_with_the_same_seed_of_a_pool(tmp_path: Path):
    write_run(tmp_path / "a", SCORE, seed=0, candidates__seed=5)
    write_run(tmp_path / "b", SCORE, seed=1, candidates__seed=6)
    assert len(rows_in(tmp_path)) == 2


def test_a_run_that_evaluates_a_trained_model_elsewhere_joins_its_row(tmp_path: Path):
    trained = write_run(tmp_path / "trained", SCORE, method="utilsel", seed=3)
    model = {"model": str(trained / "model"), "seed": None}
    write_run(tmp_path / "more", {"beir-scifact-test": {"nDCG@10": 0.7}}, collections=["beir-scifact"], **model)
    write_run(tmp_path / "again", scored(0.9), collections=["mini:test"], **model)
    rows = {row.name: row for row in rows_in(tmp_path)}
    assert set(rows) == {"again", "trained"}
    assert rows["trained"].values("retrieval", "beir-scifact-test", "nDCG@10") == [0.7]
    assert rows["again"].config["method"] == "utilsel" and rows["again"].config["seed"] == 3


def test_a_sweep_is_named_by_what_tells_its_jobs_apart(tmp_path: Path):
    for job in ("human_frac=0.2,limit=8,loss=kl,seed=1", "human_frac=0.5,limit=8,loss=kl,seed=1"):
        write_run(tmp_path / job, SCORE, job=job)
    assert [row.name for row in rows_in(tmp_path)] == ["human_frac=0.2", "human_frac=0.5"]


def test_methods_name_rows_where_they_are_distinct(tmp_path: Path):
    for name, method in (("0", "human"), ("1", "utilsel"), ("2", "utilsel")):
        write_run(tmp_path / name, SCORE, method=method, job=name)
    assert [row.name for row in rows_in(tmp_path)] == ["human", "1", "2"]


def test_a_row_is_found_by_its_name_or_a_folder_of_its(tmp_path: Path):
    for seed in (0, 1):
        write_run(tmp_path / f"label_source=llm,loss=kl,seed={seed}", SCORE, seed=seed)
    write_run(tmp_path / "label_source=human,loss=joint,seed=0", SCORE, other=1)
    rows = rows_in(tmp_path)
    wanted = next(row for row in rows if len(row.seeds) == 2)
    for name in ("llm, kl", "llm,kl", "label_source=llm,loss=kl,seed=1", str(tmp_path / "label_source=llm,loss=kl,seed=0")):
        assert find_row(rows, name, "baseline") is wanted
    with pytest.raises(UserError, match=r"baseline=x: no such run; allowed: .*llm, kl"):
        find_row(rows, "x", "baseline")


def test_folders_of_one_name_are_told_apart(tmp_path: Path):
    for sweep in ("a", "b"):
        write_run(tmp_path / sweep / "0", SCORE, sweep=sweep)
    assert [run.name for run in find_runs([str(tmp_path / "*" / "*")]).runs] == ["a/0", "b/0"]


def test_what_is_missing_or_broken_is_a_note(tmp_path: Path):
    write_run(tmp_path / "whole", SCORE)
    (write_run(tmp_path / "broken", SCORE) / "metrics.json").write_text("{")
    (write_run(tmp_path / "unfinished") / "metrics.json").unlink()
    (write_run(tmp_path / "odd", SCORE) / "config.yaml").write_text("a: [")
    (write_run(tmp_path / "bare", SCORE) / "config.yaml").unlink()
    (tmp_path / "other").mkdir()
    found = find_runs([str(tmp_path / "*")])
    assert [run.name for run in found.runs] == ["bare", "broken", "odd", "whole"]
    assert [note.partition(";")[0] for note in found.notes] == [
        "bare: config.yaml: no such file",
        "broken: metrics.json: cannot be read (JSONDecodeError)",
        "odd: config.yaml: cannot be read (ParserError)",
        "unfinished: no metrics.json",
    ]
    table = score_table("retrieval", "Retrieval", rows_of(found.runs), "retrieval", {})
    assert table is not None and [line.name for line in table.lines] == ["bare", "odd", "whole"]


def test_best_and_second_best_share_places_where_they_are_equal():
    columns = [Column("", "high"), Column("", "low", lower=True), Column("", "plain", ranked=False)]
    lines = [Line(str(n), [cell([v]), cell([v]), cell([v])]) for n, v in enumerate((0.3, 0.1, 0.3, 0.2))]
    lines.append(Line("none", [cell([])] * 3))
    places = [[c.place for c in line.cells] for line in placed(columns, lines)]
    assert places == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [2, 2, 0], [0, 0, 0]]
    assert placed(columns[:1], [Line("alone", [cell([0.5])])])[0].cells[0].place == 0


def values(*numbers: float) -> dict:
    return {"nDCG@10": {f"q{n}": v for n, v in enumerate(numbers)}}


def test_marks_compare_the_mean_of_the_seeds_with_the_baseline(tmp_path: Path):
    base = values(*[0.0, 0.1] * 8)
    better, worse = values(*[0.5, 0.7] * 8), values(*[0.0, 0.1] * 7, 0.1, 0.1)
    write_run(tmp_path / "base", scored(0.05), scores={"mini.test": base, "b.test": base}, method="base")
    write_run(tmp_path / "good0", scored(0.6), scores={"mini.test": better, "b.test": worse}, method="good")
    write_run(tmp_path / "good1", scored(0.6), scores={"mini.test": better, "b.test": worse}, method="good", seed=1)
    write_run(tmp_path / "other", scored(0.6), scores={"c.test": better}, method="other")
    rows = {row.name: row for row in rows_in(tmp_path)}
    assert len(rows["good"].seeds) == 2
    notes: list[str] = []
    # The folders have no metrics of b.test, so that its column does not exist.
    found = marks(rows["good"], rows["base"], {"nDCG@10"}, notes)
    assert found["mini.test", "nDCG@10"]["mark"] == "+" and found["mini.test", "nDCG@10"]["difference"] == pytest.approx(0.55)
    assert not marks(rows["other"], rows["base"], {"nDCG@10"}, notes) and not notes
    table = score_table("r", "R", list(rows.values()), "retrieval", {"good": found}, "base")
    assert table is not None
    good = next(line for line in table.lines if line.name == "good").cells[0]
    assert good.mark == "+" and good.told.startswith("+0.5500 [") and "against base, 16 queries" in good.told


def test_holms_correction_takes_a_mark_away(tmp_path: Path):
    """p of the t-test of this difference is 0.03: below 0.05 alone, not after the correction over two collections."""
    base = values(*[0.0] * 10)
    ours = values(0.1, 0.2, 0.0, 0.3, -0.1, 0.2, 0.1, -0.05, 0.05, 0.1)
    two = {"a.test": {"nDCG@10": 0.1}, "b.test": {"nDCG@10": 0.1}}
    write_run(tmp_path / "base", two, scores={"a.test": base, "b.test": base}, method="base")
    write_run(tmp_path / "one", {"a.test": {"nDCG@10": 0.1}}, scores={"a.test": ours}, method="one")
    write_run(tmp_path / "two", two, scores={"a.test": ours, "b.test": ours}, method="two")
    rows = {row.name: row for row in rows_in(tmp_path)}
    alone = marks(rows["one"], rows["base"], {"nDCG@10"}, [])["a.test", "nDCG@10"]
    both = marks(rows["two"], rows["base"], {"nDCG@10"}, [])["a.test", "nDCG@10"]
    assert 0.025 < alone["p t-test"] < 0.05 and (alone["mark"], both["mark"]) == ("+", "")


def test_queries_that_one_run_lacks_are_a_note(tmp_path: Path):
    write_run(tmp_path / "base", SCORE, scores={"mini.test": values(0.1, 0.2, 0.3)}, method="base")
    write_run(tmp_path / "ours", SCORE, scores={"mini.test": values(0.2, 0.3)}, method="ours")
    rows, notes = rows_in(tmp_path), []
    marks(rows[1], rows[0], {"nDCG@10"}, notes)
    assert notes == [
        "mini.test: ours is compared with base without 0 queries that only the first has and 1 that only the second has"
    ]


def test_all_answer_measures_and_lines_have_columns(tmp_path: Path):
    found = {"F1": 0.2, "EM": 0.1, "ROUGE-L": 0.3, "BLEU-4": 0.01, "BERTScore": 0.8, "AnswerRecall": 0.6, "questions": 9}
    lines = {"closed_book": {"EM": 0.0, "F1": 0.05}, "oracle": {"EM": 0.4, "F1": 0.5}}
    write_run(tmp_path / "run", rag={"mini.test": {**found, **lines}})
    table = score_table("rag", "RAG", rows_in(tmp_path), "rag", {})
    assert table is not None
    assert [c.heading for c in table.columns] == [
        *("EM", "F1", "AnswerRecall", "ROUGE-L", "BLEU-4", "BERTScore"),
        *("EM (closed_book)", "F1 (closed_book)", "EM (oracle)", "F1 (oracle)"),
    ]
    assert [c.value for c in table.lines[0].cells] == [0.1, 0.2, 0.6, 0.3, 0.01, 0.8, 0.0, 0.05, 0.4, 0.5]


MARCO = "msmarco-passage-dev-small"


def utilsel(tmp_path: Path, name: str, value: float, **config: object) -> None:
    found = {"annotator___target_": "uar.annotation.stages.UtilSel", "loss___target_": "uar.losses.summed_marginal"}
    write_run(tmp_path / name, {MARCO: {"RR@10": value}}, **{**labels("llm"), **found, **config})


def test_a_table_of_the_paper_has_its_rows_columns_and_values(tmp_path: Path):
    write_run(tmp_path / "people", {MARCO: {"RR@10": 0.381}}, **labels("human", label_source__human_frac=1.0))
    utilsel(tmp_path, "ours0", 0.35, method="utilsel")
    utilsel(tmp_path, "ours1", 0.36, method="utilsel", seed=1)
    write_run(tmp_path / "bm25", {MARCO: {"RR@10": 0.184}})
    table = paper_table(read_paper("table2"), rows_in(tmp_path), {})
    by_name = {line.name: line for line in table.lines}
    assert list(by_name) == [
        *("Human", "REPLUG", "UtilSel", "UtilRank", "UtilSel, curriculum 20 %", "UtilSel, curriculum 100 %", "bm25")
    ]
    column = table.columns[0]
    assert (column.group, column.heading, column.paper, column.ours) == ("MS MARCO", "Dev MRR@10", True, True)
    shown = {n: (li.cells[0].number(column) + li.cells[0].spread(column), li.cells[0].paper) for n, li in by_name.items()}
    assert shown["Human"] == ("38.1", 38.6)
    assert shown["UtilSel"] == ("35.5 ± 0.7 (2)", 35.3)
    assert shown["UtilRank"] == ("–", 35.7) and shown["bm25"] == ("18.4", None)
    assert by_name["bm25"].aside and not by_name["Human"].aside
    assert [by_name[n].cells[0].place for n in ("Human", "UtilSel", "bm25")] == [1, 2, 0]
    assert "No run of: REPLUG; UtilRank; UtilSel, curriculum 20 %; UtilSel, curriculum 100 %." in table.notes


def test_runs_of_one_row_of_the_paper_each_have_a_line(tmp_path: Path):
    for depth in (8, 31):
        utilsel(tmp_path, f"candidates.depth={depth},loss=summed_marginal", 0.3, candidates__depth=depth)
    table = paper_table(read_paper("table2"), rows_in(tmp_path), {})
    assert [line.name for line in table.lines if line.name.startswith("UtilSel ·")] == [
        "UtilSel · candidates.depth=31",
        "UtilSel · candidates.depth=8",
    ]


def test_on_other_collections_ours_come_first_and_the_papers_stand_apart(tmp_path: Path):
    write_run(tmp_path / "run", {"mini.test": {"nDCG@10": 0.5, "RR@10": 0.4, "AP": 0.3}}, method="human")
    table = paper_table(read_paper("table2"), rows_in(tmp_path), {})
    assert [(c.group, c.heading, c.ours, c.paper) for c in table.columns[:3]] == [
        ("mini.test", "nDCG@10", True, False),
        ("mini.test", "RR@10", True, False),
        ("paper, MS MARCO", "Dev MRR@10", False, True),
    ]
    assert [c.value for c in table.lines[0].cells[:2]] == [50.0, 40.0] and table.lines[0].cells[2].paper == 38.6
    assert any("other collections" in note and "mini.test" in note for note in table.notes)
    text = markdown([table], [], [])
    assert "| method | mini.test nDCG@10 | mini.test RR@10 | paper, MS MARCO Dev MRR@10 |" in text
    assert "| Human | 50.0 | 40.0 | 38.6 | 98.6 |" in text


def test_the_mean_over_beir_needs_every_set(tmp_path: Path):
    paper = read_paper("table3")
    wanted = [str(slug).replace("*", "-v2") for slug in paper.columns[-1].collection]
    assert len(wanted) == 14
    everything = {slug: {"nDCG@10": n / 20} for n, slug in enumerate(wanted)}
    write_run(tmp_path / "all", everything, method="human")
    write_run(tmp_path / "some", dict(list(everything.items())[:13]), method="utilsel")
    table = paper_table(paper, rows_in(tmp_path), {})
    means = {line.name: line.cells[-1] for line in table.lines}
    assert means["Human"].value == pytest.approx(100 * sum(n / 20 for n in range(14)) / 14) and means["Human"].paper == 43.1
    assert means["UtilSel"].value is None and means["UtilSel"].paper == 45.3


def test_agreement_and_cost_stand_in_the_papers_layout(tmp_path: Path):
    found = {"annotator___target_": "uar.annotation.stages.UtilSel", "llm__model": "Qwen2.5-32B-Instruct"}
    run = write_run(tmp_path / "annotate", **found)
    (run / "metrics.json").unlink()
    (run / "agreement.json").write_text(json.dumps({"precision": 0.3, "recall": 0.8, "average_positives": 2.5}))
    (run / "ledger.json").write_text(json.dumps({"queries": 10, "seconds": 7200, "cost": 300.4, "human_cost": 1000.0}))
    rows = rows_in(tmp_path)
    table = paper_table(read_paper("table1"), rows, {})
    line = next(line for line in table.lines if line.name == "Qwen UtilSel")
    assert [round(c.value or 0, 6) for c in line.cells] == [30.0, 80.0, 2.5] and line.cells[0].paper == 29.5
    table = paper_table(read_paper("table17"), rows, {})
    cells = {line.name: line.cells for line in table.lines}
    assert cells["UtilSel"][0].value == pytest.approx(2) and cells["UtilSel"][1].value == pytest.approx(300.4)
    assert cells["UtilSel and 20 % human"][1].value == pytest.approx(500.4)
    assert (cells["people"][0].value, cells["people"][1].value, cells["people"][1].paper) == (None, 1000, 1370000)


def test_experiments_choose_their_tables(tmp_path: Path):
    write_run(tmp_path / "a", SCORE, experiment="table10_sampling")
    write_run(tmp_path / "b", SCORE, experiment="figure3_human_budget")
    rows = rows_in(tmp_path)
    assert [paper.key for paper in asked_for(None, rows)] == ["figure3", "table10"]
    assert [paper.key for paper in asked_for(["table2"], rows)] == ["table2"]


def test_a_table_leaves_the_runs_of_other_experiments_out(tmp_path: Path):
    for experiment, value in (("table2_in_domain", 0.3), ("table3_beir", 0.4)):
        write_run(tmp_path / experiment, {"mini.test": {"RR@10": value}}, experiment=experiment, method="human", scale="mini")
    rows = rows_in(tmp_path)
    table = paper_table(read_paper("table2"), rows, {})
    assert [line.cells[0].value for line in table.lines if line.name == "Human"] == [30.0]
    assert any("scale=mini" in note for note in table.notes)
    both = paper_table(read_paper("table4"), rows, {})
    assert len([line for line in both.lines if line.name.startswith("Human")]) == 1  # no answers: one line of dashes


@pytest.mark.parametrize("name", names())
def test_every_file_of_the_paper_is_sound(name: str):
    paper = read_paper(name)
    headings = [column.heading for column in paper.columns]
    assert len(set(headings)) == len(headings) and len({row.name for row in paper.rows}) == len(paper.rows)
    for row in paper.rows:
        assert set(row.values) | set(row.measures) <= set(headings) and row.match
    assert set(names()) == {f"table{n}" for n in (1, 2, 3, 4, 5, 6, 7, 10, 16, 17)} | {"figure3"}


def test_latex_escapes_and_has_a_cell_a_column(tmp_path: Path):
    columns = [Column("a_b", "R@1", paper=True), Column("", "50 %")]
    lines = placed(columns, [Line("x & y_1", [cell([0.5, 0.7]), cell([])]), Line("z", [cell([0.4]), cell([0.1])])])
    text = latex([Table("t", "A & B", columns, lines, ["50 % of $"])])
    assert r"\caption{A \& B. 50 \% of \$}" in text and r"\begin{tabular}{lrrr}" in text
    assert r" & \multicolumn{2}{c}{a\_b} & \multicolumn{1}{c}{} \\" in text
    assert r"x \& y\_1 & \textbf{0.600} $\pm$ 0.141 (2) & -- & -- \\" in text
    assert r"z & \underline{0.400} & -- & 0.100 \\" in text
    assert text.count("{") == text.count("}")
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {3}


def test_markdown_escapes_names():
    table = Table("t", "T", [Column("s", "m")], [Line("a|b_c", [cell([0.5])])])
    assert r"| a\|b\_c | 0.500 |" in markdown([table], [], [])


@pytest.mark.parametrize(
    "experiment",
    [
        "table1_annotators",
        "table2_in_domain",
        "table6_ablation",
        "table7_human_positive",
        "table10_sampling",
        "table16_rank_threshold",
        "figure3_human_budget",
    ],
)
def test_the_jobs_of_an_experiment_fill_the_rows_of_its_table(tmp_path: Path, experiment: str):
    """As composed at full size, where every run has a score."""
    command = "annotate" if experiment in OF_ANNOTATE else "train"
    for at, job in enumerate(itertools.product(*sweep_of(command, f"+experiment={experiment}"))):
        cfg = composed(command, job, f"+experiment={experiment}")
        run = write_run(tmp_path / str(at), {MARCO: {"RR@10": 0.3}})
        (run / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
        (run / "agreement.json").write_text(json.dumps({"precision": 0.5, "recall": 0.5, "average_positives": 1.0}))
    rows = rows_in(tmp_path)
    (paper,) = asked_for(None, rows)
    table = paper_table(paper, rows, {})
    assert [line.name for line in table.lines] == [row.name for row in paper.rows]
    assert all(line.cells[0].value is not None for line in table.lines)
