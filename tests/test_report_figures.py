"""Figures and the explorer of a report."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from written_runs import labels, rows_in, write_labels, write_parquet, write_run

from uar.collections import open_collection
from uar.reporting.explorer import Explorer, Options, most_different
from uar.reporting.figures import Drawn, draw_all
from uar.reporting.figures.measure import interval, shown_measure
from uar.reporting.marks import marks

KEYS = {"positives", "annotators", "threshold", "human_budget", "loss", "dev", "beir", "cost"}


def drawn(tmp_path: Path) -> tuple[dict[str, Drawn], list[str]]:
    notes: list[str] = []
    return {figure.key: figure for figure in draw_all(rows_in(tmp_path), tmp_path / "out" / "figures", notes)}, notes


def scores(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {"mini.test": {"nDCG@10": {f"q{n}": float(v) for n, v in enumerate(rng.uniform(size=30))}}}


def test_figures_without_data_say_what_is_missing(tmp_path: Path):
    write_run(tmp_path / "bm25", {"mini.test": {"nDCG@10": 0.4}})
    stale = tmp_path / "out" / "figures" / "loss.pdf"
    stale.parent.mkdir(parents=True)
    stale.write_text("of an earlier report")
    found, _ = drawn(tmp_path)
    assert set(found) == KEYS and all(figure.missing and not figure.svg for figure in found.values())
    assert "csv/metrics.csv" in found["loss"].missing and "agreement.json" in found["annotators"].missing
    assert not stale.exists()


def test_figures_of_one_point_are_not_drawn(tmp_path: Path):
    run = write_run(tmp_path / "run", {"mini.test": {"nDCG@10": 0.5}, "beir-nq": {"nDCG@10": 0.3}}, **labels("human"))
    write_labels(run, [(f"q{q}", f"d{d}", int(not d), "human", "human") for q in range(6) for d in range(8)])
    (run / "csv").mkdir()
    (run / "csv" / "metrics.csv").write_text("human/loss,dev/nDCG@10,step\n0.5,,0\n,0.6,0\n")
    found, _ = drawn(tmp_path)
    assert not any(figure.svg for figure in found.values())
    assert found["positives"].missing == "every question has 1 in all runs" and "for several epochs" in found["dev"].missing


def test_legends_have_whole_names(tmp_path: Path):
    name = "label_source=mixed, label_source.strategy=curriculum, label_source.allocation=uncertainty"
    for at, method in enumerate((name, "short")):
        run = write_run(tmp_path / f"{at}", method=method)
        write_labels(run, [(f"q{q}", f"d{d}", int(d <= at), "human", "human") for q in range(6) for d in range(8)])
    found, _ = drawn(tmp_path)
    assert f"{name}, mean 1.0" in words(found["positives"].svg) and "short, mean 2.0" in words(found["positives"].svg)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that hold the data of every figure."""
    folder = tmp_path_factory.mktemp("sweep")
    annotator = {"annotator___target_": "uar.annotation.annotators.UtilRank", "annotator__rule": "top_percent"}
    llm = labels("llm", label_source__human_frac=None)
    for threshold, seed, value in ((10, 0, 0.50), (10, 1, 0.54), (25, 0, 0.47), (50, 0, 0.41)):
        run = write_run(
            folder / f"llm-{threshold}-{seed}",
            {"mini.test": {"nDCG@10": value}, "beir-scifact-test": {"nDCG@10": value / 2}, "beir-nq": {"nDCG@10": 0.3}},
            scores=scores(threshold + seed),
            **{**annotator, **llm, "annotator__threshold": threshold, "seed": seed},
        )
        chosen = threshold // 10
        write_labels(run, [(f"q{q}", f"d{d}", int(d < chosen), "llm", "llm") for q in range(6) for d in range(8)])
        (run / "csv").mkdir()
        lines = ["llm/loss,human/loss,dev/nDCG@10,step", "2.0,,,0", "1.0,,,1", ",,0.5,1", ",0.8,,0", ",0.6,,1", ",,0.7,1"]
        (run / "csv" / "metrics.csv").write_text("\n".join(lines) + "\n")
    mixed = {**annotator, "annotator__threshold": 10}
    for frac in (0.2, 1.0):
        source = labels("mixed", label_source__human_frac=frac, label_source__strategy="curriculum")
        run = write_run(folder / f"mixed-{frac}", {"mini.test": {"nDCG@10": 0.5 + frac / 10}}, **source, **mixed)
        people = [(f"q{q}", f"d{d}", int(d == 0), "human", "human") for q in range(int(6 * frac)) for d in range(8)]
        write_labels(run, [*[(f"q{q}", "d0", 1, "llm", "llm") for q in range(6)], *people])
    run = write_run(folder / "annotate", **annotator, annotator__threshold=10)
    found = {"precision": 0.6, "recall": 0.7, "average_positives": 1.1, "intervals": {"precision": [0.5, 0.7]}}
    (run / "agreement.json").write_text(json.dumps(found))
    (run / "ledger.json").write_text(json.dumps({"queries": 6, "per_1000_queries": {"cost": 50.0}}))
    return folder


@pytest.fixture(scope="module")
def figures(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Drawn], list[str]]:
    out, notes = tmp_path_factory.mktemp("figures"), []
    return out, {figure.key: figure for figure in draw_all(rows_in(sweep), out, notes)}, notes


def test_every_figure_is_drawn_as_svg_and_pdf(figures: tuple[Path, dict[str, Drawn], list[str]]):
    out, found, notes = figures
    assert not any(figure.missing for figure in found.values()) and not notes
    assert {path.name for path in out.iterdir()} == {f"{key}.{kind}" for key in KEYS for kind in ("svg", "pdf")}
    assert all((out / f"{key}.pdf").read_bytes().startswith(b"%PDF") for key in KEYS)


def test_figures_of_a_page_take_its_colours_and_share_no_ids(figures: tuple[Path, dict[str, Drawn], list[str]]):
    _, found, _ = figures
    everything = "".join(figure.svg for figure in found.values())
    ids = re.findall(r'\bid="([^"]+)"', everything)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", everything)) | set(re.findall(r'xlink:href="#([^"]+)"', everything)) <= set(ids)
    assert not re.search(r"(?i)#(222426|e4e5e7|0072b2|d55e00)", everything) and "var(--series-1)" in everything
    for figure in found.values():
        head = figure.svg[: figure.svg.index(">")]
        assert "viewBox" in head and 'role="img"' in head and " width=" not in head and " height=" not in head


def words(svg: str) -> str:
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def test_figures_show_the_rows(figures: tuple[Path, dict[str, Drawn], list[str]]):
    _, found, _ = figures
    assert "mean 1.0" in words(found["positives"].svg) and "mean 5.0" in words(found["positives"].svg)
    assert "Qwen UtilRank" in words(found["annotators"].svg) and "annotate" in words(found["annotators"].svg)
    assert "scifact" in words(found["beir"].svg) and "nq" in words(found["beir"].svg)
    assert "mixed, curriculum" in words(found["human_budget"].svg) and "100%" in words(found["human_budget"].svg)
    assert "0%" in words(found["human_budget"].svg)  # LLM labels alone
    assert all(f" {x} " in f" {words(found['threshold'].svg)} " for x in (10, 25, 50))


def test_figures_are_the_same_bytes_again(sweep: Path, figures: tuple[Path, dict[str, Drawn], list[str]], tmp_path: Path):
    out, found, _ = figures
    again = draw_all(rows_in(sweep), tmp_path, [])
    assert {figure.key: figure.svg for figure in again} == {key: figure.svg for key, figure in found.items()}
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in out.iterdir())


def test_steps_count_on_from_stage_to_stage(sweep: Path):
    from uar.reporting.figures.training import _points

    run = next(row.first for row in rows_in(sweep) if (row.first.path / "csv").is_dir())
    assert _points(run, "/loss", []) == [(0, 2.0), (1, 1.0), (2, 0.8), (3, 0.6)]
    assert _points(run, "dev/nDCG@10", []) == [(1, 0.5), (3, 0.7)]


def test_people_cost_by_the_pair_and_the_llm_by_the_question(sweep: Path):
    from uar.reporting.figures.cost import _annotator, _price

    rows = {row.name: row for row in rows_in(sweep)}
    ledgers = {_annotator(rows["annotate"].config): rows["annotate"].first.ledger}
    assert _price(rows["mixed-1.0"], ledgers, 0.09, []) == pytest.approx(6 * 8 * 0.09 + 6 * 50 / 1000)
    notes: list[str] = []
    assert _price(rows["mixed-1.0"], {}, 0.09, notes) is None and "not among the runs" in notes[0]


def test_labels_cost_what_their_own_annotations_did(tmp_path: Path):
    from uar.reporting.figures.cost import _ledgers, _price

    of_llm = {"annotator___target_": "Likelihood", "label_source___target_": "uar.labels.LLMLabels"}
    for depth, cost in ((10, 50.0), (40, 200.0)):  # the same annotator, of pools of two depths
        run = write_run(tmp_path / f"annotate-{depth}", candidates__depth=depth, annotator___target_="Likelihood")
        (run / "ledger.json").write_text(json.dumps({"queries": 2, "per_1000_queries": {"cost": cost}}))
        (run / "manifest.json").write_text(json.dumps({"annotation": f"key-{depth}"}))
    wanted = {"shallow": (["key-10"], 50), "deep": (["key-40"], 200), "both": (["key-10", "key-40"], 250)}
    for name, (keys, _) in (wanted | {"unknown": (["key-10", "key"], 0)}).items():
        run = write_run(tmp_path / name, {"mini.test": {"nDCG@10": 0.5}}, **of_llm, loss=name)
        (run / "manifest.json").write_text(json.dumps({"annotations": [{"key": key} for key in keys]}))
        write_labels(run, [(q, "d", 1, "llm", "llm") for q in ("q1", "q2")])
    notes: list[str] = []
    rows = {row.name: row for row in rows_in(tmp_path)}
    prices = {name: _price(rows[name], _ledgers(list(rows.values())), 0.09, notes) for name in (*wanted, "unknown")}
    assert prices.pop("unknown") is None and "unknown is left out, its annotate run is not among the runs" in notes[0]
    assert prices == {name: pytest.approx(2 * cost / 1000) for name, (_, cost) in wanted.items()}


def test_rows_that_another_one_beats_are_grey(figures: tuple[Path, dict[str, Drawn], list[str]], sweep: Path, tmp_path: Path):
    from uar.reporting.figures.cost import front

    points = {"a": (1.0, 0.5), "b": (2.0, 0.5), "c": (2.0, 0.7), "d": (3.0, 0.6), "e": (3.0, 0.9), "f": (1.0, 0.5)}
    assert front(points) == ["a", "f", "c", "e"]  # two that are the same beat neither the other
    _, found, _ = figures
    assert "from the cheapest up: llm-10" in found["cost"].caption and "var(--faded)" in found["cost"].svg
    plain = {figure.key: figure for figure in draw_all(rows_in(sweep), tmp_path, [], pareto=False)}["cost"]
    assert "Grey" not in plain.caption and "var(--faded)" not in plain.svg


def test_people_judged_the_pools_in_which_they_chose(tmp_path: Path):
    """In a union what person and LLM agree on is `human+llm`, and what neither chose stands as the LLM's."""
    from uar.reporting.figures.cost import _judged_by_people

    run = write_run(tmp_path / "run")
    pool = [("q1", "a", 1, "human+llm", "union"), ("q1", "b", 1, "human", "union"), ("q1", "c", 0, "llm", "union")]
    others = [("q2", "a", 1, "llm:human", "union"), ("q3", "a", 1, "generated", "union"), ("q1", "d", 0, "llm", "llm")]
    write_labels(run, [*pool, *others])
    assert _judged_by_people(pq.read_table(run / "labels.parquet")) == 3
    assert _judged_by_people(pq.read_table(run / "labels.parquet"), ["q1", "q3"]) == 5  # all of q1, in whatever stage


def test_costs_are_in_the_currency_of_the_runs(sweep: Path, tmp_path: Path):
    shutil.copytree(sweep, tmp_path / "runs")
    annotate = tmp_path / "runs" / "annotate"
    config = yaml.safe_load((annotate / "config.yaml").read_text())
    (annotate / "config.yaml").write_text(yaml.safe_dump({**config, "price": {"human_judgement": 0.5, "currency": "EUR"}}))
    ledger = json.loads((annotate / "ledger.json").read_text())
    (annotate / "ledger.json").write_text(json.dumps({**ledger, "currency": "EUR"}))
    found, notes = drawn(tmp_path / "runs")
    assert "Cost of the labels, EUR" in words(found["cost"].svg) and "0.5 EUR a pair" in found["cost"].caption and not notes
    write_run(tmp_path / "runs" / "a", price__human_judgement=0.09, price__currency="USD")
    found, notes = drawn(tmp_path / "runs")
    assert found["cost"].missing and any("prices in EUR are left out" in note for note in notes)


def test_intervals_are_those_of_the_mean_over_questions(tmp_path: Path):
    write_run(tmp_path / "run", scores={"mini.test": {"nDCG@10": {"a": 0.1, "b": 0.3, "c": 0.8}}})
    low, high = interval(rows_in(tmp_path)[0], "mini.test", "nDCG@10", []) or (0, 0)
    assert (low + high) / 2 == pytest.approx(0.4) and (high - low) / 2 == pytest.approx(4.302653 * 0.360555 / 3**0.5, rel=1e-5)


def test_of_collections_that_all_have_ms_marco_is_shown(tmp_path: Path):
    dev = {"msmarco-passage-dev-small": {"RR@10": 0.3}}
    write_run(tmp_path / "a", {"a.test": {"nDCG@10": 0.4}, **dev})
    assert shown_measure(rows_in(tmp_path)) == ("msmarco-passage-dev-small", "RR@10")
    write_run(tmp_path / "b", {"a.test": {"nDCG@10": 0.4}})
    assert shown_measure(rows_in(tmp_path)) == ("a.test", "nDCG@10")


def test_broken_files_leave_notes_and_not_a_crash(tmp_path: Path):
    run = write_run(tmp_path / "run", {"mini.test": {"nDCG@10": 0.4}}, **labels("human"))
    (run / "labels.parquet").write_text("x")
    (run / "csv").mkdir()
    (run / "csv" / "metrics.csv").write_text("a/loss,step\n0.5,x\n")
    (run / "scores").mkdir()
    (run / "scores" / "mini.test.parquet").write_text("x")
    found, notes = drawn(tmp_path)
    assert found["positives"].missing and found["loss"].missing
    assert any("labels.parquet" in note for note in notes) and any("metrics.csv" in note for note in notes)
    assert rows_in(tmp_path)[0].scores("mini.test", notes) == {} and any("mini.test.parquet" in note for note in notes)


def test_the_measures_take_turns_in_choosing_questions():
    differences = {"A": {"a": 0.9, "b": 0.5, "c": -0.4, "d": 0.0}, "B": {"a": 0.1, "e": 0.3, "c": -0.2, "b": -0.9}}
    assert most_different(differences, 2) == ["a", "e", "c", "b"]
    assert most_different(differences, 9) == ["a", "e", "b", "c"]
    assert most_different({}, 2) == [] and most_different({"A": {"a": 0.0}}, 2) == []


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two runs over questions of mini: one finds the positive first, one finds it late or not at all."""
    collection = open_collection("mini:test")
    queries = list(collection.queries)[:4]
    others = [d for d in collection.corpus.ids() if not any(d in collection.positives(q) for q in queries)]
    for name, found in (("good", True), ("bad", False)):
        values = {"nDCG@10": {q: float(found) for q in queries[:3]} | {queries[3]: 0.5}}
        run = write_run(tmp_path / name, scored(values), scores={"mini.test": values}, collections=["mini:test"], way=name)
        lines = []
        for at, q in enumerate(queries):
            gold = collection.positives(q)[0]
            ranking = [gold, *others[:6]] if found else [*others[:6], gold] if at else others[:7]
            lines += [f"{q} Q0 {d} {n} {-n} uar" for n, d in enumerate(ranking, start=1)]
        (run / "runs").mkdir()
        (run / "runs" / "mini.test.trec").write_text("\n".join(lines) + "\n")
    generation = {"query_id": queries[1], "question": "?", "gold": ["g"], "answer": "an <b>answer", "line": "oracle"}
    write_parquet(tmp_path / "good" / "generations" / "mini.test.parquet", [generation])
    labelled = write_run(tmp_path / "annotate", dataset__train="mini:test")
    write_labels(labelled, [(queries[0], others[0], 1, "llm", "llm"), (queries[0], others[1], 0, "llm", "llm")])
    elsewhere = write_run(tmp_path / "elsewhere", dataset__train="local:/x:test")
    write_labels(elsewhere, [(queries[0], others[2], 1, "llm", "llm")])
    return tmp_path


def scored(values: dict) -> dict:
    return {"mini.test": {m: sum(v.values()) / len(v) for m, v in values.items()}}


def test_the_explorer_holds_questions_lists_labels_and_generations(two: Path):
    rows, notes = {row.name: row for row in rows_in(two)}, []
    found = Explorer(Options(words=3), list(rows.values()), notes).pairs(rows["good"], [rows["bad"]])
    (pair,) = found["pairs"]
    collection = open_collection("mini:test")
    queries = list(collection.queries)[:4]
    assert (pair["baseline"], pair["run"], pair["slug"], pair["measures"]) == ("good", "bad", "mini.test", ["nDCG@10"])
    by_id = {query["id"]: query for query in pair["queries"]}
    assert set(by_id) == set(queries[:3])  # the fourth does not differ
    first, second = by_id[queries[0]], by_id[queries[1]]
    gold = collection.positives(queries[0])[0]
    assert first["text"] == collection.queries[queries[0]].text and first["scores"] == {"nDCG@10": [1.0, 0.0]}
    assert first["answers"] == list(collection.queries[queries[0]].answers)
    assert (
        first["lists"][0][0] == gold and gold not in first["lists"][1] and [len(found) for found in first["lists"]] == [5, 5]
    )
    assert first["gold"] == [[gold, 1, None]] and second["gold"][0][1:] == [1, 7]
    assert first["people"][gold] == [2, 1] and {tuple(v) for d, v in first["people"].items() if d != gold} <= {(1, 0)}
    assert list(first["llm"].values()) == [{"annotate": (1, "llm")}, {"annotate": (0, "llm")}] and pair["seeds"] == [0, 0]
    assert second["generations"] == [{"oracle": "an <b>answer"}, {}]
    title, text = found["passages"]["mini.test"][gold]
    assert (title, text.split()[:3]) == (collection.corpus.parts(gold)[0], collection.corpus.parts(gold)[1].split()[:3])
    assert text.endswith(" …") and not notes


def test_annotators_that_disagree_are_told_apart(two: Path):
    query, other = list(open_collection("mini:test").queries)[0], "x"
    second = write_run(two / "second", dataset__train="mini:test", annotator="other")
    rows, notes = {row.name: row for row in rows_in(two)}, []
    options = {"baseline": rows["good"], "chosen": [rows["bad"]]}
    found = Explorer(Options(), list(rows.values()), notes).pairs(**options)["pairs"][0]["queries"]
    other = next(iter(next(q for q in found if q["id"] == query)["llm"]))
    write_labels(second, [(query, other, 0, "llm:b", "llm"), (query, "d", 1, "human", "human")])
    found = Explorer(Options(), list(rows.values()), notes).pairs(**options)["pairs"][0]["queries"]
    assert next(q for q in found if q["id"] == query)["llm"][other] == {"annotate": (1, "llm"), "second": (0, "llm:b")}


def test_scores_lists_and_answers_are_of_one_seed(two: Path):
    """Seed 1 is the first that both rows have."""
    query = list(open_collection("mini:test").queries)[0]
    for name, seed, value in (("good", 1, 0.8), ("bad", 1, 0.2), ("good", 0, 0.9)):
        config = {"way": name, "collections": ["mini:test"], "seed": seed}
        run = two / f"{name}{seed}"
        values = {"nDCG@10": {query: value}}
        write_run(run, scored(values), scores={"mini.test": values}, **config)
        shutil.copytree(two / name / "runs", run / "runs")
    for name in ("good", "bad"):
        shutil.rmtree(two / name)
    rows, notes = {row.first.config["way"]: row for row in rows_in(two) if "way" in row.config}, []
    assert len(rows["good"].seeds) == 2
    (pair,) = Explorer(Options(), list(rows.values()), notes).pairs(rows["good"], [rows["bad"]])["pairs"]
    assert pair["seeds"] == [1, 1] and pair["queries"][0]["scores"] == {"nDCG@10": [0.8, 0.2]}


def test_where_the_collection_is_gone_ids_are_shown(two: Path):
    for name in ("good", "bad"):
        config = two / name / "config.yaml"
        config.write_text(config.read_text().replace("mini:test", "local:/gone/mini:test"))
    rows, notes = {row.name: row for row in rows_in(two)}, []
    found = Explorer(Options(), list(rows.values()), notes).pairs(rows["good"], [rows["bad"]])
    query = found["pairs"][0]["queries"][1]
    assert found["passages"] == {"mini.test": {}} and all(len(ids) == 5 for ids in query["lists"])
    assert any("mini.test cannot be opened" in note for note in notes)
    assert any(q["text"] == "?" and q["answers"] == ["g"] for q in found["pairs"][0]["queries"])  # from the generations


def test_a_pair_that_does_not_differ_is_not_the_first(two: Path):
    """`near` differs from `good` in one question, `bad` in three of four; `same` in none."""
    queries = list(open_collection("mini:test").queries)[:4]
    for name, changed in (("near", {queries[3]: 0.4}), ("same", {})):
        values = {"nDCG@10": {**dict.fromkeys(queries[:3], 1.0), queries[3]: 0.5, **changed}}
        run = write_run(two / name, scored(values), scores={"mini.test": values}, collections=["mini:test"], way=name)
        shutil.copytree(two / "good" / "runs", run / "runs")
    rows = {row.name: row for row in rows_in(two)}
    chosen = [rows[name] for name in ("same", "near", "bad")]
    by_row = {row.name: marks(row, rows["good"], ["nDCG@10"], []) for row in chosen}
    found = Explorer(Options(), list(rows.values()), []).pairs(rows["good"], chosen, by_row)["pairs"]
    assert [pair["run"] for pair in found] == ["bad", "near"]
    assert found[0]["told"]["nDCG@10"].startswith("−0.750 in the mean of 4 questions (p 0.058, which may be chance)")
    notes: list[str] = []
    (only,) = Explorer(Options(pairs=1), list(rows.values()), notes).pairs(rows["good"], chosen, by_row)["pairs"]
    assert only["run"] == "bad" and notes == ["explorer: 1 pairs are shown, 2 are not (explorer.pairs)"]


def test_the_explorer_is_capped(two: Path):
    rows, notes = {row.name: row for row in rows_in(two)}, []
    found = Explorer(Options(queries=1, pairs=1), list(rows.values()), notes).pairs(
        rows["good"], [rows["bad"], rows["annotate"]]
    )
    assert [len(pair["queries"]) for pair in found["pairs"]] == [1]
    assert notes == ["explorer: 1 pairs are shown, 1 are not (explorer.pairs)"]
