"""Every annotator on one store, against a server that knows what people said."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from annotate_runs import KEY, QUIET, asking, labels, lines, smollm2_ids, tokens, told
from commands import run_command
from conftest import SMOLLM2
from llm_server import LLMServer, Messages, gold_answers, serve

from uar.collections import open_collection

CALLS = {"relsel": 24, "utilsel": 48, "utilrank": 20, "pointwise": 160, "qa_metric": 96}  # that no annotator before made
FITTED_ON, BESIDES = 20, 16  # queries of the calibration of pointwise; those of them that are not among the 24
KEPT = {"utilsel": 24, "utilrank": 44}  # selections and answers of those before; four pools have one relevant passage
STAGES = {
    "relsel": {"relsel"},
    "utilsel": {"relsel", "pseudo_answer", "utilsel"},
    "utilrank": {"relsel", "pseudo_answer", "utilrank"},
    "pointwise": {"pointwise"},
    "qa_metric": {"passage_answer"},
}
COUNTS = ("calls", "calls_answered_by_store", "tokens_in", "tokens_cached", "tokens_out")
POOLS = ["limit=24", "candidates.depth=4"]
PRICES = ["price.input=2000", "price.cached=1000", "price.output=4000", "price.gpus=0"]


@dataclass(frozen=True)
class Annotated:
    """Runs of all annotators in one store, each in the folder of its name; `server` still answers."""

    folder: Path
    server: LLMServer

    def run(self, *arguments: str, flags: Sequence[str] = ()) -> None:
        fixed = [*asking(self.server), QUIET, *POOLS, *PRICES]
        done = run_command("annotate", [*flags, *fixed, *arguments], self.folder, 600, {"OPENAI_API_KEY": KEY})
        assert done.returncode == 0, done.stderr

    def sweep(self, *arguments: str, into: str) -> None:
        self.run(*arguments, "hydra.sweep.dir=.", f"hydra.sweep.subdir={into}", flags=["-m"])


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Annotated]:
    mini = open_collection("mini:train")
    questions = {query.text: query for query in mini.queries.values()}
    ids = {letters(text): id_ for id_, text in zip(mini.corpus.ids(), mini.corpus.texts(), strict=True)}
    lists = gold_answers(mini)

    def single(messages: Messages) -> tuple[str, int]:
        """The gold answer, and the grade of the one passage shown."""
        shown = dict(line.split(": ", 1) for line in messages[-1]["content"].splitlines() if ": " in line)
        query = questions[shown["Question"]]
        return query.answers[0], mini.qrels[query.id].get(ids[letters(shown["Passage"])], 0)

    def answer(messages: Messages) -> str:
        if "\nPassage: " not in messages[-1]["content"]:
            return lists(messages)
        gold, grade = single(messages)
        return gold if grade == 2 else "unknown"

    def choose(messages: Messages) -> dict[str, float]:
        return dict.fromkeys("0123", -3.0) | {"013"[single(messages)[1]]: -0.2}

    with serve() as server:
        server.answer, server.choose = answer, choose
        found = Annotated(tmp_path_factory.mktemp("annotated"), server)
        found.sweep(f"annotator={','.join(CALLS)}", into="${hydra.runtime.choices.annotator}")
        assert len(server.seen) == sum(CALLS.values())
        yield found


def letters(text: str) -> str:
    return re.sub(r"\W+", "", text)


@pytest.mark.parametrize("name", CALLS)
def test_every_annotator_finds_what_people_found(annotated: Annotated, name: str) -> None:
    mini, run = open_collection("mini:train"), annotated.folder / name
    rows = labels(run)
    people = [mini.qrels[r["query_id"]].get(r["doc_id"], 0) for r in rows]
    assert len(rows) == 96 and people.count(2) == 24
    assert [r["label"] for r in rows] == [int(g >= (1 if name == "relsel" else 2)) for g in people]
    grades = {"relsel": [0, 1, 1], "pointwise": [0, 1, 3], "qa_metric": [0, 0, 1]}.get(name, [0, 1, 2])
    assert [r["grade"] for r in rows] == [grades[g] for g in people]
    known = [g if name.startswith("util") else r["label"] for g, r in zip(people, rows, strict=True)]
    assert all(known[n : n + 4] == sorted(known[n : n + 4], reverse=True) for n in range(0, 96, 4))
    agreement = told(run, "agreement")
    relevant = 24 / sum(g >= 1 for g in people)
    assert agreement["recall"] == 1.0 and agreement["precision"] == pytest.approx(relevant if name == "relsel" else 1.0)
    stages = {stage: found["precision"] for stage, found in agreement.get("stages", {}).items()}
    assert stages == ({"relsel": pytest.approx(relevant), name: 1.0} if name.startswith("util") else {})
    assert ("calibration" in agreement) == (name == "pointwise")
    figures = {p.stem for p in run.glob("*.png")}
    assert figures == {"positives", "by_rank", "confusion"} | ({"reliability"} if name == "pointwise" else set())


def test_probabilities_are_calibrated_on_queries_that_no_figure_counts(annotated: Annotated) -> None:
    agreement, mini = told(annotated.folder / "pointwise", "agreement"), open_collection("mini:train")
    calibration = agreement["calibration"]
    fitted_on = set(calibration["queries"])
    assert (len(fitted_on), calibration["queries_fitted_on"], len(fitted_on - set(mini.head(24)))) == (20, 20, BESIDES)
    shown = {r["query_id"] for r in labels(annotated.folder / "pointwise")}
    assert shown == set(mini.head(24)) and agreement["queries"] == len(shown - fitted_on) == 24 - (FITTED_ON - BESIDES)
    assert calibration["pairs"] == agreement["judged_pairs"]
    assert told(annotated.folder / "pointwise")["queries_for_calibration_alone"] == BESIDES
    assert calibration["temperature"] < 1 and calibration["after"]["brier"] < calibration["before"]["brier"]
    rows = labels(annotated.folder / "pointwise")
    assert {(r["label"], r["score"] > 0.95, r["score"] < 0.05) for r in rows} == {(1, True, False), (0, False, True)}
    assert all(0 <= r["uncertainty"] < 0.3 for r in rows)


@pytest.mark.parametrize("name", CALLS)
def test_the_ledger_adds_up_by_stage_and_by_price(annotated: Annotated, name: str) -> None:
    ledger = told(annotated.folder / name)
    calls, kept = CALLS[name], KEPT.get(name, 0)
    assert [ledger[count] for count in COUNTS] == [calls, kept, 7 * calls, 2 * calls, 3 * calls]
    assert ledger["kept_calls"] == {"tokens_in": 7 * kept, "tokens_out": 3 * kept, "tokens_cached": 2 * kept}
    assert ledger["outcomes"] == {"ok": calls + kept}
    stages = ledger["stages"]
    assert set(stages) == STAGES[name]
    for count in COUNTS:
        assert sum(stage[count] for stage in stages.values()) == ledger[count]
    assert {stage["outcome_rates"]["ok"] for stage in stages.values()} == {1.0}
    call = (5 * 2000 + 2 * 1000 + 3 * 4000) / 1e6
    assert ledger["cost"] == pytest.approx(calls * call) == pytest.approx(sum(stage["cost"] for stage in stages.values()))
    each = ledger["per_1000_queries"]
    assert each["calls"] == pytest.approx((calls + kept) / 24 * 1000, abs=0.1)
    assert each["cost"] == pytest.approx((calls + kept) * call / 24 * 1000)
    assert each["tokens_in"] == pytest.approx(7 * each["calls"], abs=1)
    assert (ledger["pairs"], ledger["human_cost"]) == (96, pytest.approx(96 * 0.09))
    assert (ledger["model"], ledger["currency"], ledger["gpu_hours"]) == ("gold", "USD", 0.0)


def test_shards_on_one_store_are_the_whole_run_and_are_compared_with_another(annotated: Annotated) -> None:
    before = len(annotated.server.seen)
    annotated.sweep(
        "annotator=utilsel", "shard=1/2,2/2,null", "store=sharded", "against=relsel", into="shard-${hydra.job.num}"
    )
    assert len(annotated.server.seen) == before + 72
    first, second, whole = (annotated.folder / f"shard-{n}" for n in range(3))
    assert [told(run)["calls"] for run in (first, second, whole)] == [36, 36, 0]
    assert told(whole)["calls_answered_by_store"] == 72
    mini = open_collection("mini:train")
    for run, queries in ((first, list(mini.queries)[:24:2]), (second, list(mini.queries)[1:24:2])):
        assert list(dict.fromkeys(r["query_id"] for r in labels(run))) == queries
    rows = labels(whole)
    assert rows == labels(annotated.folder / "utilsel")
    assert sorted(map(str, labels(first) + labels(second))) == sorted(map(str, rows))

    reference = {(r["query_id"], r["doc_id"]): r["label"] for r in labels(annotated.folder / "relsel")}
    equal = sum(r["label"] == reference[r["query_id"], r["doc_id"]] for r in rows)
    against = told(whole, "agreement")["against"]
    assert (against["queries"], against["pairs"], against["precision"]) == (24, 96, 1.0)
    assert against["equal_labels"] == pytest.approx(equal / 96) and 0 < equal < 96
    assert against["recall"] == pytest.approx(24 / sum(reference.values()))
    assert told(first, "agreement")["against"]["pairs"] == 48


def test_a_dry_run_counts_what_the_run_asks_and_asks_nothing(annotated: Annotated) -> None:
    before = len(annotated.server.seen)
    model = [f"llm.model={SMOLLM2}", "store=counted"]
    annotated.run("annotator=relsel", "limit=4", *model, "hydra.run.dir=some")
    annotated.sweep("annotator=relsel,pointwise", "dry_run=true,false", *model, into="counted-${hydra.job.num}")
    assert len(annotated.server.seen) == before + 4 + 20 + 160  # of those that are not dry
    runs = [annotated.folder / f"counted-{n}" for n in range(4)]
    for dry, real, stage, calls in ((runs[0], runs[1], "relsel", 24), (runs[2], runs[3], "pointwise", 160)):
        found, ledger = told(dry, "estimate"), told(real)
        kept = 4 if stage == "relsel" else 0
        assert found["calls"] == ledger["calls"] + kept == found["stages"][stage]["calls"] == calls
        assert (found["sampled_calls"], found["sampled_calls_kept"]) == (calls, kept)
        besides = BESIDES if stage == "pointwise" else 0
        assert (found["pairs"] - 4 * besides, found["queries"] - besides) == (ledger["pairs"], ledger["queries"]) == (96, 24)
        assert found["human_cost"] == pytest.approx(ledger["human_cost"] * (24 + besides) / 24)
        asked = lines(dry / "prompts.jsonl")
        assert [row["stage"] for row in asked] == [stage] * calls
        sent = [
            body["messages"]
            for _, _, body in annotated.server.seen[before:]
            if ("Passage:" in str(body)) == (stage == "pointwise")
        ]
        assert sorted(map(str, sent)) == sorted(str(row["messages"]) for row in asked)
        prompts = [(row["query_id"], smollm2_ids(row["messages"])) for row in asked]
        cached, earlier = 0, {}
        for query_id, ids in prompts:
            cached += max((len(os.path.commonprefix([ids, other])) for other in earlier.get(query_id, [])), default=0)
            earlier.setdefault(query_id, []).append(ids)
        written = calls * (1 if stage == "pointwise" else tokens("My selection:[[1],[2]]"))
        counts = [found[name] for name in ("tokens_in", "tokens_cached", "tokens_out")]
        assert counts == [sum(len(ids) for _, ids in prompts), cached, written]
        assert found["tokens_counted_by"] == "tokenizer" and (cached > 0) == (stage == "pointwise")
        price = ((counts[0] - cached) * 2000 + cached * 1000 + written * 4000) / 1e6
        assert found["cost"] == pytest.approx(price, abs=1e-4)
    first, second = told(runs[0], "estimate"), told(runs[2], "estimate")
    assert (first["tokens_per_second"], first["seconds"], first["gpu_hours"]) == (None, None, None)
    rate = told(runs[1])["computed_tokens_per_second"]
    assert second["tokens_per_second"] == rate
    computed = second["tokens_in"] - second["tokens_cached"] + second["tokens_out"]
    assert second["seconds"] == pytest.approx(computed / rate, abs=0.1)
    assert told(annotated.folder / "counted", "rates") == {SMOLLM2: told(runs[3])["computed_tokens_per_second"]}
    assert not list(runs[0].glob("labels*")) and not (runs[0] / "ledger.json").exists()


def test_an_ensemble_of_two_models_asks_both_and_one_that_fails_abstains(annotated: Annotated) -> None:
    before = len(annotated.server.seen)
    annotated.server.fault = lambda number, body: "prose" if body["model"] == "second" else None
    second = ["+llm@llms.second=openai", f"llms.second.base_urls=[{annotated.server.url}]", "llms.second.model=second"]
    annotated.run("annotator=ensemble", "annotator@annotator.member=relsel", *second, "store=voted", "hydra.run.dir=voted")
    annotated.server.fault = lambda number, body: None
    assert [body["model"] for _, _, body in annotated.server.seen[before:]].count("second") == 24
    assert len(annotated.server.seen) == before + 48
    ledger = told(annotated.folder / "voted")
    assert (ledger["model"], ledger["outcomes"]) == (["gold", "second"], {"ok": 24, "unparsable": 24})
    assert len(lines(annotated.folder / "voted" / "failures.jsonl")) == 24
    chosen = {(r["query_id"], r["doc_id"]): r["label"] for r in labels(annotated.folder / "relsel")}
    rows = labels(annotated.folder / "voted")
    assert {(r["query_id"], r["doc_id"]): r["label"] for r in rows} == chosen
    assert {(r["label"], r["score"], r["uncertainty"]) for r in rows} == {(1, 1.0, None), (0, 0.0, None)}
