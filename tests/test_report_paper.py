"""Our runs in the tables of the paper, over run folders written by hand."""

import itertools
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_experiments import EXPERIMENTS, GIVEN_BY_USER, OF_ANNOTATE, composed, sweep_of
from written_runs import labels, rows_in, write_run

from uar.collections.presets import expand
from uar.collections.reference import slug
from uar.errors import UserError
from uar.reporting.paper_table import asked_for, names, paper_table, read_paper
from uar.reporting.report_run import _named
from uar.reporting.result_table import cost_table, score_table
from uar.reporting.rows import stand_ins
from uar.reporting.text import markdown

SCORE = {"mini.test": {"nDCG@10": 0.5, "AP": 0.25}}


MARCO = "msmarco-passage-dev-small"


def utilsel(tmp_path: Path, name: str, value: float, **config: object) -> None:
    found = {"annotator___target_": "uar.annotation.annotators.UtilSel", "loss___target_": "uar.losses.summed_marginal"}
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


def test_a_baseline_is_named_as_a_table_of_the_paper_names_it(tmp_path: Path):
    write_run(tmp_path / "people", {MARCO: {"RR@10": 0.381}}, **labels("human", label_source__human_frac=1.0))
    for depth in (8, 31):
        utilsel(tmp_path, f"candidates.depth={depth},loss=summed_marginal", 0.3, candidates__depth=depth)
    rows, papers = rows_in(tmp_path), [read_paper("table2")]
    assert _named("Human", rows, papers).name == _named("people", rows, papers).name == "people"
    assert _named("UtilSel · candidates.depth=31", rows, papers).name == "candidates.depth=31"
    with pytest.raises(UserError, match="baseline=UtilSel: no such run; allowed: "):
        _named("UtilSel", rows, papers)


def test_rows_that_another_annotator_fills_say_so(tmp_path: Path):
    llm = {"annotator___target_": "uar.annotation.annotators.Likelihood", "llm__model": "pkg:llm/SmolLM2-135M.gguf"}
    for name, source in (("human", "human"), ("utilsel", "llm"), ("replug", "qa_metric")):
        found = {"EM": 0.1, "questions": 4}
        write_run(
            tmp_path / name, {MARCO: {"RR@10": 0.3}}, {"nq.test": found}, method=name, scale="mini", **labels(source, **llm)
        )
    rows = rows_in(tmp_path)
    lines = paper_table(read_paper("table2"), rows, {}).lines
    stand_in = " (stand-in: Likelihood by SmolLM2-135M.gguf)"
    assert [line.name for line in lines[:4]] == ["Human", f"REPLUG{stand_in}", f"UtilSel{stand_in}", "UtilRank"]
    assert stand_ins(rows) == ["scale=mini: the LLM's labels of replug, utilsel are those of Likelihood by SmolLM2-135M.gguf."]
    assert "Questions answered: nq.test 4." in paper_table(read_paper("table5"), rows, {}).notes


def test_the_lengths_that_were_read_stand_beside_the_papers_values(tmp_path: Path):
    for name, length in (("human", 256), ("utilsel", 128)):
        run = write_run(tmp_path / name, {MARCO: {"RR@10": 0.3}}, method=name)
        (run / "manifest.json").write_text(f'{{"measured": {{"query_length": 64, "passage_length": {length}}}}}')
    table = paper_table(read_paper("table3"), rows_in(tmp_path), {})
    assert "Ours read of a query and a passage 64 and 128 or 64 and 256 tokens." in table.notes


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
    assert [column.paper for column in table.columns] == [False] * 14 + [True], "the paper has no values of single sets"


def test_the_parts_of_cqadupstack_count_as_one_set(tmp_path: Path):
    parts = [slug(reference) for reference in expand("beir-cqadupstack")]
    values = {part: {"nDCG@10": n / 10, "AP": 0.5} for n, part in enumerate(parts)}
    write_run(tmp_path / "all", values, method="human")
    write_run(tmp_path / "some", dict(list(values.items())[1:]), method="utilsel")
    rows = rows_in(tmp_path)
    table = paper_table(read_paper("table3"), rows, {})
    at = [column.heading for column in table.columns].index("cqadupstack")
    shown = {line.name: line.cells[at].value for line in table.lines}
    assert shown["Human"] == pytest.approx(100 * sum(range(12)) / 10 / 12) and shown["UtilSel"] is None
    own = score_table("retrieval", "Retrieval", rows[:1], "retrieval", {})
    assert own is not None and [c.group for c in own.columns] == ["beir-cqadupstack"] * 2
    both = score_table("retrieval", "Retrieval", rows, "retrieval", {})
    assert both is not None and [c.group for c in both.columns[::2]] == ["beir-cqadupstack", *parts[1:]]
    (of_some,) = (line for line in both.lines if line.name == "utilsel")
    assert [c.value for c in of_some.cells[::2]] == [None, *(pytest.approx(n / 10) for n in range(1, 12))]


def test_a_seed_that_lacks_a_collection_does_not_count(tmp_path: Path):
    wanted = [str(name).replace("*", "-v2") for name in read_paper("table3").columns[-1].collection]
    for seed, value, there in ((0, 0.2, 13), (1, 0.4, 14), (2, 0.6, 14)):
        found = {name: {"nDCG@10": value} for name in wanted[:there]}
        write_run(tmp_path / str(seed), found, method="human", seed=seed)
    human = paper_table(read_paper("table3"), rows_in(tmp_path), {}).lines[0].cells
    assert (human[-1].value, human[-1].seeds) == (pytest.approx(50.0), 2)
    assert (human[0].value, human[0].seeds) == (pytest.approx(40.0), 3)


@pytest.mark.parametrize("name", ["nq.test", "beir-nq", "natural-questions-dev", "dpr-w100-natural-questions-test"])
def test_natural_questions_are_known_by_several_names(tmp_path: Path, name: str):
    write_run(tmp_path / "run", rag={name: {"EM": 0.25, "F1": 0.5}, "beir-nqx": {"EM": 0.1, "F1": 0.1}}, method="human")
    human = paper_table(read_paper("table5"), rows_in(tmp_path), {}).lines[0].cells
    assert [c.value for c in human[:2]] == [25.0, 50.0] and human[2].value is None


def test_a_row_of_the_paper_takes_no_run_that_only_shares_an_option(tmp_path: Path):
    """The human run has the annotator's default threshold; a union is no curriculum."""
    score = {MARCO: {"RR@10": 0.3}}
    write_run(tmp_path / "people", score, **labels("human", annotator__threshold=10.0, annotator___target_="x.UtilRank"))
    utilsel(tmp_path, "union", 0.3, **labels("mixed", label_source__strategy="union", label_source__human_frac=0.2))
    for paper in ("table16", "figure3"):
        table = paper_table(read_paper(paper), rows_in(tmp_path), {})
        assert [line.name for line in table.lines if line.cells[0].value is not None and not line.aside] == []


def test_agreement_and_cost_stand_in_the_papers_layout(tmp_path: Path):
    found = {"annotator___target_": "uar.annotation.annotators.UtilSel", "llm__model": "Qwen2.5-32B-Instruct"}
    run = write_run(tmp_path / "annotate", **found)
    (run / "metrics.json").unlink()
    (run / "agreement.json").write_text(json.dumps({"precision": 0.3, "recall": 0.8, "average_positives": 2.5}))
    all_calls = {"seconds": 720_000, "cost": 30_040}  # a run that goes on where one stopped asked for a tenth of them
    spent = {
        "queries": 10,
        "calls_answered_by_store": 9,
        "seconds": 720,
        "cost": 30.04,
        "currency": "EUR",
        "human_cost": 1000.0,
        "per_1000_queries": all_calls,
    }
    (run / "ledger.json").write_text(json.dumps(spent))
    rows = rows_in(tmp_path)
    table = paper_table(read_paper("table1"), rows, {})
    line = next(line for line in table.lines if line.name == "Qwen UtilSel")
    assert [round(c.value or 0, 6) for c in line.cells] == [30.0, 80.0, 2.5] and line.cells[0].paper == 29.5
    table = paper_table(read_paper("table17"), rows, {})
    cells = {line.name: line.cells for line in table.lines}
    assert cells["UtilSel"][0].value == pytest.approx(2) and cells["UtilSel"][1].value == pytest.approx(300.4)
    assert cells["UtilSel and 20 % human"][1].value == pytest.approx(500.4)
    assert (cells["people"][0].value, cells["people"][1].value, cells["people"][1].paper) == (None, 1000, 1370000)
    own = cost_table(rows)
    assert own is not None and "Costs in EUR." in own.notes
    shown = {column.heading: c.value for column, c in zip(own.columns, own.lines[0].cells, strict=True)}
    assert (shown["seconds"], shown["cost"], shown["cost, all calls"]) == (720, 30.04, pytest.approx(300.4))


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


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name.startswith(("table", "figure"))])
def test_the_jobs_of_an_experiment_fill_the_rows_of_its_table(tmp_path: Path, experiment: str):
    """As composed at full size, where every run has a score of what it is scored on."""
    command = "annotate" if experiment in OF_ANNOTATE else "train"
    for at, job in enumerate(itertools.product(*sweep_of(command, f"+experiment={experiment}"))):
        cfg = composed(command, job, f"+experiment={experiment}")
        for key in GIVEN_BY_USER:
            if OmegaConf.select(cfg, key.split(".")[0]) is not None:
                OmegaConf.update(cfg, key, "x")
        slugs = [slug(reference) for reference in expand(list(cfg.dataset.test))]
        answered = dict.fromkeys(("EM", "F1", "BLEU-3", "BLEU-4", "ROUGE-L", "BERTScore"), 0.2)
        measured = dict.fromkeys(cfg.get("measures", ()), 0.3)
        with_rag = command == "train" and cfg.rag.llm
        run = write_run(tmp_path / str(at), dict.fromkeys(slugs, measured), dict.fromkeys(slugs if with_rag else (), answered))
        (run / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
        (run / "agreement.json").write_text(json.dumps({"precision": 0.5, "recall": 0.5, "average_positives": 1.0}))
        spent = {"queries": 10, "human_cost": 3.0, "per_1000_queries": {"seconds": 9.0, "cost": 1.0}}
        (run / "ledger.json").write_text(json.dumps(spent))
    (paper,) = asked_for(None, rows_in(tmp_path))
    table = paper_table(paper, rows_in(tmp_path), {})
    assert [line.name for line in table.lines] == [row.name for row in paper.rows]
    headings = [column.heading for column in table.columns]
    empty = {(line.name, h) for line in table.lines for h, c in zip(headings, line.cells, strict=True) if c.value is None}
    of_another_command = {(line.name, "Hybrid MRR@10") for line in table.lines if "Hybrid MRR@10" in headings}
    assert empty == of_another_command | ({("people", "hours")} if paper.key == "table17" else set())
