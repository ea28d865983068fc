"""Costs of a run: prices, GPUs, and estimates before anything is asked."""

from collections.abc import Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

import pytest
from annotate_runs import QUIET
from tiny_models import tiny_llama

from uar.annotation import assignment
from uar.annotation.annotate_run import annotate
from uar.annotation.annotators import Pointwise, UtilSel
from uar.collections import Collection
from uar.launch.entry import composed
from uar.llm.call import Question
from uar.llm.costs import gpus as gpus_module
from uar.llm.costs.estimate import estimate, render
from uar.llm.costs.gpus import with_gpus
from uar.llm.costs.ledger import Prices, ledger, rate_name
from uar.llm.costs.trial import tried_rate
from uar.llm.progress import Counts, Progress
from uar.pools import GivenPool
from uar.questions.writer import QuestionWriter


def test_gpu_time_is_paid_by_the_hour_and_shared_by_the_stages() -> None:
    progress = Progress()
    for stage, asked, seconds in (("relsel", 4, 30.0), ("utilsel", 2, 10.0)):
        counts = Counts(asked=asked, kept=1, seconds=seconds)
        counts.outcomes.update({"ok": asked, "empty": 1})
        progress.stages[stage] = counts
    spent = ledger(progress, 5, 20, 1_800.0, ["m"], Prices(gpu_hour=0.8, gpus=8))
    assert (spent["gpu_hours"], spent["cost"], spent["human_cost"]) == (4.0, 3.2, None)
    assert {name: stage["cost"] for name, stage in spent["stages"].items()} == {"relsel": 2.4, "utilsel": 0.8}
    assert spent["stages"]["relsel"]["outcome_rates"] == {"ok": 0.8, "empty": 0.2}
    each = spent["per_1000_queries"]  # two of eight calls were kept, which would have taken a third more time
    assert (each["calls"], each["seconds"], each["gpu_hours"]) == (1_600, 480_000, pytest.approx(1_066.66667))
    assert each["cost"] == pytest.approx(853.333333)
    kept = Progress(stages={"relsel": Counts(kept=5)})
    assert ledger(kept, 5, 20, 0.1, ["m"], Prices(gpu_hour=0.8, gpus=8))["per_1000_queries"]["cost"] is None
    assert ledger(kept, 0, 0, 0.1, [], Prices(gpus=0))["cost"] is None


def test_gpu_hours_without_gpus_have_no_cost() -> None:
    tokens = {"tokens_in": 10, "tokens_cached": 0, "tokens_out": 0}
    for gpus in (None, 0):
        assert Prices(gpu_hour=0.8, gpus=gpus).cost(tokens, 3_600.0) is None
        assert Prices(gpu_hour=0.8, input=1.0, gpus=gpus).cost(tokens, 3_600.0) is None
        assert Prices(input=1e6, gpus=gpus).cost(tokens, 3_600.0) == 10
    assert Prices().gpu_hours(3_600.0) is None and Prices(gpus=3).gpu_hours(7_200.0) == 6


@pytest.mark.parametrize(
    ("llms", "engine", "seen", "gpus"),
    [
        (["openai.OpenAI"], {}, True, None),
        (["transformers.Transformers"], {}, True, 1),
        (["transformers.Transformers"], {}, False, 0),
        (["vllm.VLLM"], {}, True, 4),
        (["vllm.VLLM", "transformers.Transformers"], {}, True, 4),
        (["vllm.VLLM", "openai.OpenAI"], {}, True, None),
        (["vllm.VLLM"], {"actors": 2, "num_gpus": 4}, False, 8),
        ([], {}, True, 0),
    ],
)
def test_the_gpus_of_a_run_are_those_that_its_engine_holds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, llms: list[str], engine: dict, seen: bool, gpus: float
) -> None:
    monkeypatch.setattr(gpus_module, "_seen", lambda: seen)
    configs = [{"_target_": f"uar.llm.models.{name}"} for name in llms]
    configs = [c | ({"tensor_parallel_size": 4} if "vllm" in c["_target_"] else {}) for c in configs]
    engine = {"_target_": "uar.llm.engines.ray.RayEngine" if engine else "uar.llm.engines.local.LocalEngine"} | engine
    assert with_gpus(Prices(gpu_hour=1.0), configs, engine).gpus == gpus
    assert ("give price.gpus" in caplog.text) == (not gpus)
    assert with_gpus(Prices(gpus=16), configs, engine).gpus == 16


def test_pools_of_a_dry_run_are_those_of_its_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = []

    def ranked(self: GivenPool, collection: Collection, query_ids: Sequence[str]) -> dict[str, list[str]]:
        asked.extend(query_ids)
        return {q: list(collection.corpus.ids())[:2] for q in query_ids[:1]}

    monkeypatch.setattr(GivenPool, "ranked", ranked)
    monkeypatch.setattr(assignment, "SAMPLE", 2)
    options = ["annotator=utilsel", "candidates=given", "candidates.include_positive=false", "dry_run=true", "limit=8", QUIET]
    found = annotate(composed("annotate", *options, "llm=openai", "llm.model=m", "llm.base_urls=[]"), tmp_path)
    assert len(asked) == 2
    assert (found["queries"], found["queries_rendered"], found["calls"]) == (4, 1, 12)  # half of eight have candidates


class Words:
    """Counts words."""

    name = "words"

    def prompt(self, request: Any) -> list[str]:
        return str(request.messages).split()

    def count(self, prompt: list[str]) -> int:
        return len(prompt)

    def count_text(self, text: str) -> int:
        return len(text.split())


def test_an_estimate_is_that_of_the_sample_in_proportion() -> None:
    sample = [Question(f"q{n}", "why", {f"d{i}": "because of it" for i in range(5)}) for n in range(4)]
    prices = Prices(gpu_hour=3.0, gpus=2, human_judgement=0.1)
    answer = 23 + 2 * 2  # words of the made-up answer and of two selections
    for annotator, calls, written in ((UtilSel(template="utilsel"), 3, answer), (Pointwise(template="pointwise"), 5, 5)):
        few = estimate(render(annotator, sample), 4, Words(), prices, None)
        many = estimate(render(annotator, sample), 4_000, Words(), prices, 50.0)
        assert (few["calls"], few["tokens_out"], few["pairs"]) == (4 * calls, 4 * written, 20)
        assert (few["seconds"], few["cost"]) == (None, None)  # a price by the hour needs a time
        for name in ("calls", "tokens_in", "tokens_cached", "tokens_out", "pairs"):
            assert many[name] == 1_000 * few[name]
        seconds = (many["tokens_in"] - many["tokens_cached"] + many["tokens_out"]) / 50
        assert many["seconds"] == pytest.approx(seconds, abs=0.1)
        assert many["cost"] == pytest.approx(seconds / 3_600 * 2 * 3.0, abs=1e-3)
        assert many["human_cost"] == pytest.approx(2_000.0)


def test_a_shared_prefix_is_estimated_to_be_read_once() -> None:
    passages = {f"d{i}": f"It is because of reason {i} and of many more like it." for i in range(20)}
    sample = [Question("q", "why", passages)]
    found = {
        layout: estimate(render(UtilSel(template="utilsel", layout=layout), sample), 1, Words(), Prices(gpus=0), 1.0)
        for layout in ("paper", "shared_prefix")
    }
    assert found["shared_prefix"]["tokens_in"] > found["paper"]["tokens_in"]  # all passages at every stage
    assert found["shared_prefix"]["seconds"] < 0.75 * found["paper"]["seconds"]


def test_a_local_model_is_tried_for_its_rate_and_a_served_one_is_not(tmp_path: Path) -> None:
    chat = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    llm = {"_target_": "uar.llm.models.transformers.Transformers", "model": tiny_llama(tmp_path / "model", chat_template=chat)}
    sample = render(
        QuestionWriter(template="write_questions"), [Question(f"d{n}", "", {"d": "Bees hum. " * n}) for n in range(1, 9)]
    )
    rate = tried_rate(llm, sample)
    assert rate is not None and rate > 0
    served = {"_target_": "uar.llm.models.openai.OpenAI", "model": "m", "base_urls": ["http://127.0.0.1:9"]}
    assert tried_rate(served, sample) is None and tried_rate({**llm, "model": str(tmp_path)}, sample) is None


def test_what_prompts_begin_with_alike_counts_once_where_the_model_keeps_it() -> None:
    sample = render(QuestionWriter(template="write_questions"), [Question(d, "", {d: d}) for d in ("ant", "bee", "cow")])
    apart, kept = (estimate(sample, 6, Words(), Prices(), 10.0, keeps) for keeps in (False, True))  # type: ignore[arg-type]
    alike = len(commonprefix([Words().prompt(asked[0].request) for _, asked in sample]))
    assert (apart["tokens_cached"], kept["tokens_cached"]) == (0, 2 * 2 * alike) and alike > 100
    assert kept["seconds"] < apart["seconds"]


def test_the_rate_of_writing_texts_is_kept_apart() -> None:
    writer, selector = QuestionWriter(template="write_questions"), UtilSel(template="utilsel")
    assert rate_name("m", writer) == "m write_questions" and rate_name("m", selector) == "m"
