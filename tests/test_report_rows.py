"""Which runs are one row of a report, and what the rows are called."""

import os
from pathlib import Path

import pytest
from written_runs import rows_in, write_run

from uar.errors import UserError
from uar.launch.resolvers import folder_name
from uar.reporting.rows import find_row, shared

SCORE = {"mini.test": {"nDCG@10": 0.5, "AP": 0.25}}


def test_the_same_seed_twice_is_two_rows(tmp_path: Path):
    for name in ("a", "b"):
        write_run(tmp_path / name, SCORE, loss="joint")
    assert [row.name for row in rows_in(tmp_path)] == ["a", "b"]


def test_lists_among_overrides_stay_whole(tmp_path: Path):
    for loss in ("joint", "kl"):
        write_run(tmp_path / f"loss={loss},rag.lines=[retrieved,oracle],x=[1,[2,3]]", SCORE, loss=loss)
    rows = rows_in(tmp_path)
    assert [row.name for row in rows] == ["joint", "kl"] and shared(rows) == ["rag.lines=[retrieved,oracle]", "x=[1,[2,3]]"]


def test_a_folder_name_that_was_cut_tells_rows_apart_by_what_is_whole(tmp_path: Path):
    for source in ("human", "llm"):
        overrides = f"label_source={source},limit=4,retriever.model=" + 300 * "m"
        write_run(tmp_path / folder_name(overrides), SCORE, source=source)
    assert [row.name for row in rows_in(tmp_path)] == ["human", "llm"] and shared(rows_in(tmp_path)) == ["limit=4"]


def test_other_configs_are_other_rows_even_with_the_same_seed_of_a_pool(tmp_path: Path):
    write_run(tmp_path / "a", SCORE, seed=0, candidates__seed=5)
    write_run(tmp_path / "b", SCORE, seed=1, candidates__seed=6)
    assert len(rows_in(tmp_path)) == 2


def test_a_part_whose_seed_stays_is_another_method_than_one_whose_seed_follows(tmp_path: Path):
    for seed in (0, 1, 2):
        write_run(tmp_path / f"stays{seed}", SCORE, seed=seed, candidates__seed=0, rag__seed=0)
        write_run(tmp_path / f"follows{seed}", SCORE, seed=seed, candidates__seed=seed, rag__seed=0, loss="kl")
    assert [(row.name, len(row.seeds)) for row in rows_in(tmp_path)] == [("follows0", 3), ("stays0", 3)]


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
    place = tmp_path / "label_source=llm,loss=kl,seed=0"
    for name in ("llm, kl", "llm,kl", "label_source=llm,loss=kl,seed=1", str(place), f"{place}/", os.path.relpath(place)):
        assert find_row(rows, name, "baseline") is wanted
    with pytest.raises(UserError, match=r"baseline=x: no such run; allowed: .*llm, kl"):
        find_row(rows, "x", "baseline")


def test_the_name_of_several_folders_is_refused(tmp_path: Path):
    for sweep in ("a", "b"):
        write_run(tmp_path / sweep / "bm25", SCORE, sweep=sweep)
    rows = rows_in(tmp_path)
    assert find_row(rows, "b/bm25", "baseline") is rows[1]
    with pytest.raises(UserError, match=r"baseline=bm25: the name of several runs: a/bm25, b/bm25; give one of these"):
        find_row(rows, "bm25", "baseline")
