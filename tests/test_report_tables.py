"""Rows, tables and marks of a report, over run folders written by hand."""

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console
from written_runs import labels, rows_in, write_labels, write_parquet, write_run

from uar.errors import UserError
from uar.evaluation.score_files import write_score_file
from uar.reporting.alike import notes_of
from uar.reporting.constants import without_constants
from uar.reporting.marks import marks
from uar.reporting.result_table import Column, Line, Table, cell, judge_agreement_table, placed, score_table
from uar.reporting.rows import rows_of, shared
from uar.reporting.run_folders import find_runs
from uar.reporting.text import answers, latex, markdown, overview, terminal
from uar.storage.files import write_table

SCORE = {"mini.test": {"nDCG@10": 0.5, "AP": 0.25}}


def scored(value: float) -> dict:
    return {"mini.test": {"nDCG@10": value}}


def test_runs_that_differ_in_their_seed_alone_are_one_row(tmp_path: Path):
    for seed, value in ((0, 0.4), (1, 0.5), (2, 0.6)):
        sampled = {"seed": seed, "candidates__seed": seed, "rag__seed": 0, "logger__csv__folder": f"run-{seed}"}
        write_run(tmp_path / f"loss=joint,seed={seed}", scored(value), loss="joint", **sampled)
    write_run(tmp_path / "loss=kl,seed=0", scored(0.3), loss="kl")
    rows = rows_in(tmp_path)
    assert [(row.name, len(row.seeds)) for row in rows] == [("joint", 3), ("kl", 1)]
    table = score_table("retrieval", "Retrieval", rows, "retrieval", {})
    assert table is not None
    told = [[c.number(col) + c.spread(col) for c, col in zip(line.cells, table.columns, strict=True)] for line in table.lines]
    assert told == [["0.500 ± 0.100 (3)"], ["0.300"]]


def test_a_run_that_evaluates_a_trained_model_elsewhere_joins_its_row(tmp_path: Path):
    trained = write_run(tmp_path / "trained", SCORE, method="utilsel", seed=3)
    model = {"model": str(trained / "model"), "seed": None}
    write_run(tmp_path / "more", {"beir-scifact-test": {"nDCG@10": 0.7}}, collections=["beir-scifact"], **model)
    write_run(tmp_path / "again", scored(0.9), collections=["mini:test"], **model)
    rows = {row.name: row for row in rows_in(tmp_path)}
    assert set(rows) == {"again", "trained"}
    assert rows["trained"].values("retrieval", "beir-scifact-test", "nDCG@10") == [0.7]
    assert rows["again"].config["method"] == "utilsel" and rows["again"].config["seed"] == 3


@pytest.mark.parametrize(
    "otherwise",
    [{"rerank__depth": 100}, {"run": "bm25.trec"}, {"search__ef": 64}, {"expand__documents": "abstract"}, {"pooling": "cls"}],
)
def test_what_ranks_otherwise_than_the_trained_model_is_a_row_of_its_own(tmp_path: Path, otherwise: dict):
    searched = {"search__precision": "auto", "search__embeddings": None, "rerank___target_": None, "expand__store": "a"}
    trained = write_run(tmp_path / "trained", SCORE, **searched)
    model = {"model": str(trained / "model"), "seed": None}
    for name, more in (("alike", {"search__embeddings": "vectors", "expand__store": "b"}), ("other", otherwise)):
        write_run(tmp_path / name, {f"{name}.test": {"nDCG@10": 0.7}}, **{**searched, **model, **more})
    assert {row.name: row.slugs for row in rows_in(tmp_path)} == {
        "other": ["other.test"],
        "trained": ["mini.test", "alike.test"],
    }


def test_folders_of_one_name_are_told_apart(tmp_path: Path):
    for sweep in ("a", "b"):
        write_run(tmp_path / sweep / "0", SCORE, sweep=sweep)
    assert [run.name for run in find_runs([str(tmp_path / "*" / "*")]).runs] == ["a/0", "b/0"]


def test_runs_are_found_at_any_depth_once_and_counted_by_their_files(tmp_path: Path):
    outputs = tmp_path / "outputs"
    for place in ("2026-11-28/10-00-00-train", "sweep/loss=kl,seed=0", "named"):
        write_run(outputs / place, SCORE, place=place)
    unfinished = write_run(outputs / "named" / "again")
    (unfinished / "metrics.json").unlink()
    write_run(outputs / "named" / "evaluated", SCORE)
    (outputs / "sweep" / "loss=kl,seed=0" / "wandb").mkdir()
    (outputs / "sweep" / "loss=kl,seed=0" / "wandb" / "config.yaml").write_text("a: 1")
    (outputs / "report").mkdir()
    found = find_runs([str(outputs), str(outputs / "*")])
    assert [run.name for run in found.runs] == ["10-00-00-train", "named", "evaluated", "loss=kl,seed=0"]
    assert found.notes == []  # what lies in a run's folder without scores is not a run
    write_run(outputs / "broken")
    (outputs / "broken" / "metrics.json").unlink()
    assert find_runs([str(outputs)]).notes == ["broken: no metrics.json; the run has not ended, or failed (see its uar.log)"]
    with pytest.raises(UserError, match=r"runs=.*report: no folder with a metrics.json there or below; give run folders"):
        find_runs([str(outputs / "report")])


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
    assert [line.cells[0].place for line in placed(columns[:1], [Line(n, [cell([0.5])]) for n in "ab"])] == [0, 0]


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
    text, tables = markdown([table], [], [], "A report", "base"), latex([table], "base")
    assert text.startswith("# A report\n") and "Marks + and −: better and worse than base; two-sided paired t-test" in text
    assert "p $<$ 0.05 after Holm's correction over collections.}" in tables
    assert "Marks" not in markdown([replace(table, lines=table.lines[:1])], [], [], "", "base")
    good = next(line for line in table.lines if line.name == "good").cells[0]
    assert good.mark == "+" and good.note.startswith("+0.5500 [") and "against base, 16 queries" in good.note


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"collections": {"mini.test": "b"}}, "content"),
        ({"measured": {"passage_length": 128}}, "passage length (256: base and other, 128: ours)"),
        ({"measured": {"precision": "float32"}}, "precision (bfloat16: base and other, float32: ours)"),
        ({"measured": {"retrieval_depth": 10}}, "retrieval depth (1000: base and other, 10: ours)"),
    ],
)
def test_runs_that_were_not_measured_alike_get_no_mark_and_no_bold(tmp_path: Path, theirs: dict, said: str):
    manifest = {
        "collections": {"mini.test": "a", "b.test": "a"},
        "measured": {"retrieval_depth": 1000, "precision": "bfloat16", "passage_length": 256},
    }
    both = {"mini.test": {"nDCG@10": 0.5}, "b.test": {"nDCG@10": 0.5}}
    for name, value in (("base", 0.1), ("other", 0.5), ("ours", 0.7)):
        there = {slug: values(*[value, value + 0.1] * 8) for slug in both}
        run = write_run(tmp_path / name, {slug: {"nDCG@10": value} for slug in both}, scores=there, method=name)
        changed = theirs if name == "ours" else {}
        own = {key: {**manifest[key], **changed.get(key, {})} for key in manifest}
        (run / "manifest.json").write_text(json.dumps(own))
    base, other, ours = rows_in(tmp_path)
    notes: list[str] = []
    assert marks(other, base, {"nDCG@10"}, notes)["mini.test", "nDCG@10"]["mark"] == "+" and not notes
    found = marks(ours, base, {"nDCG@10"}, notes)
    assert ("mini.test", "nDCG@10") not in found
    pair = said.replace("256: base and other, 128: ours", "128: ours, 256: base")
    pair = pair.replace("bfloat16: base and other, float32: ours", "float32: ours, bfloat16: base")
    pair = pair.replace("1000: base and other, 10: ours", "10: ours, 1000: base")
    assert notes[0] == f"mini.test: ours is not compared with base, as they were not measured alike: {pair}"
    table = score_table("r", "R", [base, other, ours], "retrieval", {})
    assert table is not None
    bold = {column.group: [line.cells[at].place for line in table.lines] for at, column in enumerate(table.columns)}
    of_content = "collections" in theirs
    assert bold == {"mini.test": [0, 0, 0], "b.test": [0, 2, 1] if of_content else [0, 0, 0]}
    assert f"mini.test: not measured alike, so nothing is bold or underlined: {said}" in notes_of([base, other, ours])
    assert notes_of([base, other]) == []


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


def test_what_all_lines_share_stands_above_them_once(tmp_path: Path):
    for job, value in (("loss=kl", 0.3), ("loss=joint", 0.5)):
        for seed in (0, 1):
            config = {"loss": job, "seed": seed, "dataset__train": "mini:train", **labels("human")}
            run = write_run(tmp_path / f"limit=2,{job},seed={seed}", scored(value + seed / 10), **config)
            write_labels(run, [("q1", "d1", 1, "human", "a"), ("q2", "d1", 1, "human", "a"), ("q1", "d1", 1, "human", "b")])
    rows = rows_in(tmp_path)
    assert [row.name for row in rows] == ["joint", "kl"] and shared(rows) == ["limit=2"]
    table = score_table("retrieval", "Retrieval", rows, "retrieval", {})
    assert table is not None and [c.heading for c in table.columns] == ["questions", "nDCG@10"]
    assert [line.cells[0].value for line in table.lines] == [2.0, 2.0]
    told = without_constants(table)
    assert told.shared == ["All rows: trained on 2 questions; ± is the standard deviation over 2 seeds."]
    assert "| joint | **0.550** ± 0.071 |" in markdown([told], [], [], "", "", "All rows of sweeps: limit=2.")
    assert "number follows" not in markdown([told], [], []) and "All rows of sweeps" in markdown(
        [told], [], [], shared="All rows of sweeps"
    )
    assert "trained on 2 questions" in latex([told])
    write_run(tmp_path / "bm25", scored(0.2))
    first = next(iter(sorted(tmp_path.glob("limit=2,loss=kl,*"))))
    write_labels(first, [("q1", "d1", 1, "human", "a")])
    rows = rows_in(tmp_path)
    table = score_table("retrieval", "Retrieval", rows, "retrieval", {})
    assert table is not None
    shown = {line.name: line.cells[0].number(table.columns[0]) for line in without_constants(table).lines}
    assert shown == {"bm25": "–", "joint": "2", "kl": "2"}  # of kl the mean of 1 and 2, rounded to even
    spread = {line.name: line.cells[0].spread(table.columns[0]) for line in table.lines}
    assert spread == {"bm25": "", "joint": "", "kl": " ± 1 (2)"}  # that equal counts differ by 0 says nothing


def test_queries_of_weight_0_are_not_trained_on(tmp_path: Path):
    run = write_run(tmp_path / "run", SCORE, **labels("human"))
    rows = [{"query_id": q, "doc_id": "d", "label": 1, "weight": w} for q, w in (("q1", 1.0), ("q2", 0.0), ("q3", None))]
    write_parquet(run / "labels.parquet", rows)
    assert rows_in(tmp_path)[0].values("learnt", "", "questions") == [2.0]
    (run / "labels.parquet").write_text("x")
    assert rows_in(tmp_path)[0].values("learnt", "", "questions") == []


def test_an_annotator_whose_name_has_human_in_it_is_no_person(tmp_path: Path):
    run = write_run(tmp_path / "run", SCORE, **labels("mixed"))
    sources = ["llm:human_like", "human", "human+llm:human_like", "llm", "generated+llm"]
    write_labels(run, [(f"q{at}", "d", 1, source, "a") for at, source in enumerate(sources)])
    assert rows_in(tmp_path)[0].values("learnt", "", "people") == [2.0]


def test_a_depth_that_is_a_large_share_of_the_corpus_is_no_result(tmp_path: Path):
    found = {"nDCG@10": 0.5, "R@100": 0.9, "Success@100": 1.0, "R(rel=2)@10": 0.4, "P@100": 0.1}
    run = write_run(tmp_path / "run", dict.fromkeys(("mini.test", "large.test", "old.test"), {**found, "RR@10": 0.4}))
    (run / "manifest.json").write_text(json.dumps({"passages": {"mini.test": 584, "large.test": 10_210}}))
    rows = rows_in(tmp_path)
    table = score_table("retrieval", "Retrieval", rows, "retrieval", {}, deepest=0.05)
    assert table is not None
    assert [c.heading for c in table.columns if c.group == "mini.test"] == ["nDCG@10", "R(rel=2)@10", "P@100", "RR@10"]
    assert {c.group for c in table.columns if c.heading == "R@100"} == {"large.test", "old.test"}
    assert "mini.test: R@100 is left out, as it looks at 17% of the 584 passages" in table.notes
    whole = score_table("retrieval", "Retrieval", rows, "retrieval", {})
    assert whole is not None and len(whole.columns) == 18 and not whole.notes
    short = overview(rows, deepest=0.05)
    assert short is not None and [c.heading for c in short.columns] == ["nDCG@10", "RR@10", *["nDCG@10", "R@100"] * 2]


def test_a_terminal_shows_spread_and_marks(tmp_path: Path):
    write_run(tmp_path / "base", scored(0.05), scores={"mini.test": values(*[0.0, 0.1] * 8)}, method="base")
    for seed, value in ((0, 0.5), (1, 0.7)):
        kept = {"mini.test": values(*[value, value + 0.1] * 8)}
        write_run(tmp_path / f"good{seed}", scored(value), scores=kept, method="good", seed=seed)
    rows = {row.name: row for row in rows_in(tmp_path)}
    found = {"good": marks(rows["good"], rows["base"], {"nDCG@10"}, [])}
    table = overview(list(rows.values()), found, "base")
    assert table is not None
    into = StringIO()
    Console(width=100, file=into).print(terminal(table, 100, "base"))
    told = " ".join(into.getvalue().split())
    assert "0.600+ ± 0.141 (2)" in told and "better and worse than base" in told and "number follows" in told


def test_all_answer_measures_and_lines_have_columns(tmp_path: Path):
    found = {"F1": 0.2, "EM": 0.1, "ROUGE-L": 0.3, "BLEU-4": 0.01, "BERTScore": 0.8, "AnswerRecall": 0.6, "questions": 9}
    lines = {"closed_book": {"EM": 0.0, "F1": 0.05}, "oracle": {"EM": 0.4, "F1": 0.5}}
    write_run(tmp_path / "run", rag={"mini.test": {**found, **lines}})
    table = score_table("rag", "RAG", rows_in(tmp_path), "rag", {})
    assert table is not None
    assert [c.heading for c in table.columns] == [
        *("EM", "F1", "AnswerRecall", "ROUGE-L", "BLEU-4", "BERTScore"),
        *("EM (closed_book)", "F1 (closed_book)", "EM (oracle)", "F1 (oracle)", "questions"),
    ]
    assert [c.value for c in table.lines[0].cells] == [0.1, 0.2, 0.6, 0.3, 0.01, 0.8, 0.0, 0.05, 0.4, 0.5, 9]
    assert table.lines[0].cells[-1].number(table.columns[-1]) == "9" and not table.columns[-1].ranked
    short = answers(rows_in(tmp_path))
    assert short is not None and [c.heading for c in short.columns] == ["EM", "F1", "AnswerRecall", "F1 (oracle)"]
    write_run(tmp_path / "other", rag={"mini.test": {"ROUGE-L": 0.3, "BLEU-4": 0.01, "BERTScore": 0.8}})
    short = answers(rows_in(tmp_path, "other"))
    assert short is not None and [c.heading for c in short.columns] == ["ROUGE-L", "BLEU-4"]


def test_a_terminal_shows_what_it_has_room_for(tmp_path: Path):
    """Names are whole; of many collections one measure each. A column of `s10.test` takes 8 letters and 3 of frame."""
    few, many = ({f"s{n}.test": {"nDCG@10": 0.5, "R@100": 0.9} for n in range(10, 10 + count)} for count in (4, 12))
    for name, found, columns in (("few", few, 8), ("many", many, 8)):
        write_run(tmp_path / name, found)
        table = overview(rows_in(tmp_path, name))
        assert table is not None
        width = 4 + len(name) + columns * 11
        into = StringIO()
        drawn = terminal(table, width)
        Console(width=width, file=into).print(drawn)
        told = into.getvalue()
        assert len(drawn.renderables[0].columns) == columns + 1 and f"│ {name} │" in told and "…" not in told
        assert ("8 of 12 columns" in told) == (name == "many")


def test_latex_escapes_and_has_a_cell_a_column(tmp_path: Path):
    columns = [Column("a_b", "R@1", paper=True), Column("", "50 %")]
    lines = placed(columns, [Line("x & y_1", [cell([0.5, 0.7]), cell([])]), Line("z", [cell([0.4]), cell([0.1])])])
    text = latex([Table("t", "A & B", columns, lines, ["50 % of $"])])
    assert r"\caption{A \& B. 50 \% of \$ Bold: best; underlined: second best. $\pm$: standard deviation over" in text
    assert r"\begin{tabular}{lrrr}" in text
    assert r" & \multicolumn{2}{c}{a\_b} & \multicolumn{1}{c}{} \\" in text
    assert r"x \& y\_1 & \textbf{0.600} $\pm$ 0.141 (2) & -- & -- \\" in text
    assert r"z & \underline{0.400} & -- & 0.100 \\" in text
    assert text.count("{") == text.count("}")
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {3}


def test_markdown_escapes_names():
    table = Table("t", "T", [Column("s", "m")], [Line("a|b_c", [cell([0.5])])])
    assert r"| a\|b\_c | 0.500 |" in markdown([table], [], [])


def test_judged_measures_stand_beside_the_others_with_what_failed(tmp_path: Path):
    def judged(rate: float, how: str) -> dict[str, Any]:
        return {"judged": {"Faithfulness": {"questions": 9, "failed": 1, "failure_rate": rate, "how": how}}}

    agreement = {"agreement": {"Faithfulness": {"EM": {"questions": 9, "correlation": 0.4, "tau": 0.3}}}}
    of_gold = {"EM": 0.4, "Faithfulness": 0.7, **judged(0.0, "by a")}
    write_run(
        tmp_path / "a", rag={"m": {"EM": 0.1, "Faithfulness": 0.5, **judged(0.1, "by a"), **agreement, "oracle": of_gold}}
    )
    write_run(tmp_path / "b", rag={"m": {"EM": 0.2, **judged(1.0, "by a"), "questions": 9}}, method="b")
    rows = rows_in(tmp_path)
    table = score_table("rag", "RAG", rows, "rag", {})
    assert table is not None and not table.notes
    assert [c.heading for c in table.columns] == [
        *("EM", "Faithfulness", "Faithfulness failed", "EM (oracle)", "Faithfulness (oracle)", "Faithfulness (oracle) failed"),
        "questions",
    ]
    assert [[c.value for c in line.cells][:5] for line in table.lines] == [
        [0.1, 0.5, 0.1, 0.4, 0.7],
        [0.2, None, 1.0, None, None],
    ]
    against = judge_agreement_table(rows)
    assert against is not None and [c.heading for c in against.columns] == ["Faithfulness, EM"]
    assert [[c.value for c in line.cells] for line in against.lines] == [[0.3]]

    write_run(tmp_path / "c", rag={"m": {"EM": 0.2, "Faithfulness": 0.9, **judged(0.0, "by b")}}, method="c")
    table = score_table("rag", "RAG", rows_in(tmp_path), "rag", {})
    assert table is not None and table.notes == [
        "m: Faithfulness is not judged alike, so nothing of it is bold or underlined: by a; by b"
    ]
    assert [column.ranked for column in table.columns[:3]] == [True, False, False]


def test_answers_that_were_scored_otherwise_are_neither_ranked_nor_marked(tmp_path: Path):
    values = dict(zip("abcdef", [0.1, 0.2, 0.3, 0.1, 0.2, 0.3], strict=True))
    for name, gold, more in (("a", "1", 0.0), ("b", "1", 0.5), ("c", "2", 0.5)):
        write_run(tmp_path / name, rag={"m": {"EM": 0.2 + more, "oracle": {"EM": 0.9 - more}}}, method=name)
        said = {"computed": json.dumps({"EM": f"normaliser; gold answers {gold}"})}
        write_table(tmp_path / name / "generations" / "m.parquet", pa.table({"query_id": ["a"]}).replace_schema_metadata(said))
        scores = [(q, measure, v + more) for q, v in values.items() for measure in ("EM", "EM (oracle)")]
        write_score_file(tmp_path / name / "scores" / "m.parquet", scores)
    rows = rows_in(tmp_path)
    assert set(marks(rows[1], rows[0], ["EM", "EM (oracle)"], [])) == {("m", "EM"), ("m", "EM (oracle)")}
    assert not marks(rows[2], rows[0], ["EM", "EM (oracle)"], [])
    table = score_table("rag", "RAG", rows, "rag", {})
    assert table is not None and [column.ranked for column in table.columns] == [False, False]
    assert table.notes[0].startswith("m: EM is not computed alike, so nothing of it is bold or underlined: normaliser;")
    two = score_table("rag", "RAG", rows[:2], "rag", {})
    assert two is not None and not two.notes and [column.ranked for column in two.columns] == [True, True]
