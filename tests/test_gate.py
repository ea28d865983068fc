"""The gate: an annotator that does not agree with people well enough is stopped before it is asked about all questions."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from annotate_runs import asking, labels
from conftest import write_jsonl
from hydra.utils import instantiate
from llm_server import LLMServer, Messages

from uar.annotation import gate
from uar.annotation.annotate_run import annotate
from uar.annotation.annotation import Asked
from uar.annotation.annotators import RelSel
from uar.annotation.gate import Comparison, Gate, GateClosed
from uar.annotation.judgement import Judgement
from uar.annotation.quality.lower_bound import at_least
from uar.collections import open_collection
from uar.errors import UserError
from uar.launch.entry import composed
from uar.reporting.result_table import agreement_table
from uar.reporting.rows import rows_of
from uar.reporting.run_folders import find_runs
from uar.storage.ordering import rank_of
from uar.training.context import label_context

QUESTIONS, PASSAGES, GATED = 120, 4, 60


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 questions with a pool of four passages each, two of which people judged positive, two negative."""
    place = tmp_path_factory.mktemp("gate") / "own"
    (place / "qrels").mkdir(parents=True)
    (place / "candidates").mkdir()
    ids = [(f"q{n}", [f"q{n}p{at}" for at in range(PASSAGES)]) for n in range(QUESTIONS)]
    passages = [{"_id": d, "title": "", "text": f"Passage <{d}> of it."} for _, pool in ids for d in pool]
    write_jsonl(place / "corpus.jsonl", passages)
    write_jsonl(place / "queries.jsonl", [{"_id": q, "text": f"question {q}"} for q, _ in ids])
    write_jsonl(place / "candidates" / "train.jsonl", [{"query_id": q, "candidates": pool} for q, pool in ids])
    rows = "".join(f"{q}\t{d}\t{int(at < 2)}\n" for q, pool in ids for at, d in enumerate(pool))
    (place / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    return place


def right(share: float) -> Callable[[Messages], str]:
    """Selects as people did but for a share of the passages, drawn by their ids."""

    def answer(messages: Messages) -> str:
        shown = re.findall(r"\[(\d+)\] Passage q(\d+)p(\d)", re.sub(r"[<>]", "", str(messages)))
        chosen = []
        for number, query, at in dict.fromkeys(shown):
            wrong = int.from_bytes(rank_of(0, "wrong", query, at)[:4], "big") / 2**32 >= share
            chosen += [f"[{number}]"] if (int(at) < 2) != wrong else []
        return f"My selection:[{','.join(chosen)}]"

    return answer


@pytest.fixture
def gated(judged: Path, tmp_path: Path, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    monkeypatch.chdir(tmp_path)
    given = ["dataset=local", f"dataset.path={judged}", "candidates=given", "annotator=relsel", "logger=none"]

    def run(name: str, *overrides: str) -> dict:
        return annotate(composed("annotate", *given, f"gate.questions={GATED}", *overrides, *asking(server)), Path(name))

    return run


@pytest.fixture
def learns_from(judged: Path, server: LLMServer) -> Callable[[str], set[str]]:
    """The questions whose labels a training takes from an annotation."""
    given = ["dataset=local", f"dataset.path={judged}", "candidates=given", "annotator=relsel", *asking(server)]

    def learns(annotation: str) -> set[str]:
        cfg = composed("train", *given, f"annotation={annotation}")
        collection = open_collection(f"local:{judged}:train")
        return set(label_context(cfg, collection, instantiate(cfg.candidates), Path("train"), []).judgements())

    return learns


def result(name: str) -> dict:
    return json.loads(Path(name, "gate.json").read_text())


def agreed(name: str) -> list[str]:
    """What the report says beside the agreement of a run."""
    table = agreement_table(rows_of(find_runs([name]).runs))
    return [] if table is None else list(table.notes)


def test_an_annotator_that_is_right_in_three_of_five_is_stopped_after_the_questions_of_the_gate(
    gated: Callable[..., dict], server: LLMServer
) -> None:
    server.answer = right(0.6)
    with pytest.raises(
        GateClosed, match=r"balanced_accuracy 0\.\d+ over 30 of 30 .*, below gate.floor=0.8. Nothing else was"
    ) as error:
        gated("run")
    assert len(server.seen) == GATED and "\n" not in str(error.value) and "gate_disagreements.jsonl" in str(error.value)
    found = result("run")
    deciding, refining = (set(found[half]["query_ids"]) for half in ("deciding", "refining"))
    assert (len(deciding), len(refining), deciding & refining, found["passed"]) == (30, 30, set(), False)
    pairs = [json.loads(line) for line in Path("run/gate_disagreements.jsonl").read_text().splitlines()]
    assert pairs and {pair["query_id"] for pair in pairs} <= refining
    assert json.loads(Path("run/agreement.json").read_text())["queries"] == 30  # nobody refines on those that decide
    assert json.loads(Path("run/ledger.json").read_text())["calls"] == GATED
    with pytest.raises(GateClosed):
        gated("again")
    assert len(server.seen) == GATED and result("again")["decisions"] == 1
    assert agreed("run")[-1].endswith(
        f"run: the gate was closed: balanced_accuracy {found['deciding']['value']:.3f} over 30 questions that decided, at "
        f"least {found['deciding']['low']:.3f} with 95% confidence, gate.floor=0.8"
    )


def test_one_that_is_right_in_nineteen_of_twenty_passes_and_is_asked_nothing_twice(
    gated: Callable[..., dict], server: LLMServer, caplog: pytest.LogCaptureFixture, learns_from: Callable[[str], set[str]]
) -> None:
    server.answer = right(0.95)
    with caplog.at_level("INFO"):
        spent = gated("run", "limit=100")
    extra = GATED - len(set(result("run")["deciding"]["query_ids"] + result("run")["refining"]["query_ids"])
                        & {f"q{n}" for n in range(100)})  # fmt: skip
    assert len(server.seen) == spent["calls"] == 100 + extra and spent["queries"] == 100
    assert (spent["queries_for_gate_alone"], spent["queries_for_calibration_alone"]) == (extra, 0)
    assert "run: the gate was passed: balanced_accuracy 0.9" in agreed("run")[-1]
    assert "Gate passed: balanced_accuracy 0.9" in caplog.text and result("run")["deciding"]["low"] > 0.8
    for annotation in ("latest", "union", "run"):
        assert learns_from(annotation) == {f"q{n}" for n in range(100)}, "those that the run was about, and not the gate's"
    gated("all")
    assert len(server.seen) == QUESTIONS and len(learns_from("latest")) == QUESTIONS and len(learns_from("run")) == 100
    with caplog.at_level("INFO"):
        gated("prompt", "annotator.max_words=299")
    assert "these questions have decided on 2 annotators or prompts" in caplog.text


@pytest.fixture
def ray_stays() -> Iterator[None]:
    """Ray is started once for the runs of a test."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def test_with_actors_of_ray_the_gate_decides_the_same_and_asks_first_too(
    gated: Callable[..., dict], server: LLMServer, ray_stays: None
) -> None:
    on_ray = ["engine=ray", "engine.batch_size=16"]
    server.answer = right(0.6)
    with pytest.raises(GateClosed, match=r"below gate.floor=0.8. Nothing else was"):
        gated("closed", *on_ray)
    assert len(server.seen) == GATED and not result("closed")["passed"]
    server.answer = right(0.95)
    spent = gated("run", "limit=100", "store=other", *on_ray)
    assert len(server.seen) == GATED + spent["calls"] and spent["queries"] == 100
    of_gate = result("run")["deciding"]["query_ids"][0]
    write_jsonl(Path("listed.jsonl"), [{"query_id": of_gate}])
    listed = ["limit=1", "acquire=listed", "acquire.path=listed.jsonl", *on_ray]  # nothing is left after the gate
    for name, options in (("here", ["limit=100"]), ("listed", listed)):
        gated(name, "store=other", *options)
    assert len(server.seen) == GATED + spent["calls"]
    assert result("here") == result("run") == result("listed")
    assert [row["query_id"] for row in labels(Path("listed"))] == [of_gate] * PASSAGES
    assert labels(Path("here")) == labels(Path("run"))


def test_only_the_deciding_half_decides(judged: Path, gated: Callable[..., dict], server: LLMServer) -> None:
    collection = open_collection(f"local:{judged}:train")
    refining, deciding = Gate(questions=GATED).draw(collection, 0, (), lambda q: True)
    smaller = Gate(questions=20).draw(collection, 0, (), lambda q: True)
    assert set(smaller[0]) < set(refining) and set(smaller[1]) < set(deciding)
    good, bad = right(1.0), right(0.0)
    server.answer = lambda messages: (good if re.search(r"question (q\d+)", str(messages))[1] in deciding else bad)(messages)
    gated("run", "limit=1")
    found = result("run")
    assert (found["deciding"]["value"], found["refining"]["value"], found["passed"]) == (1.0, 0.0, True)


def test_questions_without_a_passage_that_both_judged_decide_nothing(
    judged: Path, gated: Callable[..., dict], server: LLMServer, tmp_path: Path
) -> None:
    place = tmp_path / "apart"
    (place / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl", "candidates"):
        (place / name).symlink_to(judged / name)
    last = f"q0p{PASSAGES - 1}"  # which is in the pool of one question
    rows = "".join(f"q{n}\t{last}\t{int(n % 2)}\n" for n in range(QUESTIONS))
    (place / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    with pytest.raises(
        GateClosed, match=r"not defined over [01] of 30 .*: of the others no passage was judged by both"
    ) as error:
        gated("run", f"dataset.path={place}", "candidates.include_positive=false")
    assert len(server.seen) == GATED and "\n" not in str(error.value)


def test_bounds_by_hand(judged: Path) -> None:
    collection = open_collection(f"local:{judged}:train")

    def says(labels: dict[str, tuple[int, ...]]) -> dict[str, list[Judgement]]:
        return {q: [Judgement(f"{q}p{at}", label, label, None, at + 1) for at, label in enumerate(of_query)]
                for q, of_query in labels.items()}  # fmt: skip

    everything = says({f"q{n}": (1, 1, 0, 0) for n in range(20)})
    z = 1.6448536
    wilson = 40 / (40 + z**2)  # of 40 right ones of 40
    perfect = at_least(collection, everything, "balanced_accuracy")
    assert (perfect.value, perfect.questions, perfect.pairs) == (1.0, 20, 80)
    assert perfect.low == pytest.approx(wilson, abs=1e-6)  # a bootstrap alone would say 1
    assert at_least(collection, everything, "accuracy").low == pytest.approx(80 / (80 + z**2), abs=1e-6)
    assert at_least(collection, everything, "kappa").low == pytest.approx(2 * 80 / (80 + z**2) - 1, abs=1e-6)
    assert at_least(collection, everything, "ranked_first").low == pytest.approx(20 / (20 + z**2), abs=1e-6)
    lazy = at_least(collection, says({f"q{n}": (0, 0, 0, 0) for n in range(20)}), "balanced_accuracy")
    assert lazy.value == 0.5 and lazy.low < 0.5
    half = says({f"q{n}": (1, 1, 0, 0) if n % 2 else (0, 0, 1, 1) for n in range(20)})  # pairs of a question go together
    values = np.random.default_rng(0).binomial(20, 0.5, 100_000) / 20
    assert at_least(collection, half, "accuracy").low == pytest.approx(np.percentile(values, 5), abs=0.051)
    assert at_least(collection, {}, "accuracy").low is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"questions": 8}, "gate.questions=8, gate.refine=0.5: 4 questions would decide, and 5 or more"),
        ({"measure": "f2"}, "gate.measure=f2: allowed: balanced_accuracy, accuracy,"),
        ({"floor": 1.2}, "gate.floor=1.2: a number from 0 to below 1"),
        ({"questions": -1}, "gate.questions=-1: a number of questions"),
    ],
)
def test_an_impossible_gate_is_one_line(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Gate(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["gate.questions=200"], r"gate.questions=200: people judged 120 questions of local:.*; have more judged"),
        (["questions=generate", "questions.min_passage_words=1"], "not written yet, so nobody judged them; annotate without"),
    ],
)
def test_a_gate_with_too_few_judged_questions_asks_nothing(
    gated: Callable[..., dict], server: LLMServer, options: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        gated("run", *options)
    assert "\n" not in str(error.value) and server.seen == []


def test_without_judgements_by_people_there_is_no_gate(
    judged: Path, gated: Callable[..., dict], server: LLMServer, tmp_path: Path
) -> None:
    place = tmp_path / "unjudged"
    place.mkdir()
    for name in ("corpus.jsonl", "queries.jsonl", "candidates"):
        (place / name).symlink_to(judged / name)
    with pytest.raises(UserError, match="people judged 0 questions of local:.*; have more judged"):
        gated("run", f"dataset.path={place}")
    assert server.seen == []


def test_gates_that_decide_at_once_are_both_counted(judged: Path, tmp_path: Path, both: Callable) -> None:
    collection, comparison = open_collection(f"local:{judged}:train"), Comparison(Gate(), [], ["q1"], seed=0)
    asked = [Asked(RelSel(template="relsel"), [model], collection) for model in ("a@1", "b@1", "c@1")]
    both(gate, *(partial(comparison._count, each, tmp_path) for each in asked[:2]))
    assert comparison._count(asked[2], tmp_path) == 3
