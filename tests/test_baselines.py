"""BM25 and the untrained retriever beside the trained one, on six passages."""

import importlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import tiny_bert

from uar.collections import Collection, open_collection, slug
from uar.collections.presets import expand
from uar.errors import UserError
from uar.evaluation.evaluator import Evaluator
from uar.evaluation.kept_scores import measured
from uar.evaluation.metrics_file import AFTER, BEFORE, GIVEN_KEPT, update_metrics
from uar.evaluation.retrieving import Retrieving
from uar.evaluation.significance import compare
from uar.launch.small_table import as_text
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.fusion.fusion_ranker import Fusion
from uar.retrievers.ranker import Pools, Ranker
from uar.storage.runs import Run, write_run
from uar.training import baselines as module
from uar.training.baseline_table import KEPT, Compared
from uar.training.baselines import Baselines, _means, below, chosen

SEARCH = {"_target_": "uar.retrievers.vector_index.ExactSearch", "precision": "fp32"}
SETTINGS = {"measures": ["AP", "RR@10"], "rag": {"llm": None}, "search": SEARCH, "store": "none", "retrieval_depth": 6}
HOW = Retrieving(None, 6)


@pytest.fixture
def toy(folder: Path, own_cache: Path) -> Collection:
    return open_collection(f"local:{folder}:test")


class Counted(Ranker):
    """Ranks the positives first, and counts how often it does."""

    name = "counted"

    def __init__(self, key: str | None) -> None:
        self.asked, self._key = 0, key

    def key(self, collection: Collection) -> str | None:
        return self._key

    def rank(self, collection: Collection, query_ids: Sequence[str], depth: int) -> Run:
        self.asked += 1
        return {q: [(d, 1.0) for d in collection.positives(q)] for q in query_ids}

    def score(self, collection: Collection, pools: Pools) -> Run:
        return {}


def test_scores_are_measured_once_for_each_test_model_and_list_of_measures(toy: Collection, own_cache: Path):
    ranker = Counted("a")
    first = measured(ranker, [toy], ["RR@10"], HOW, "a")
    assert first.values == {"toy.test": {"RR@10": dict.fromkeys(("q1", "q2", "q3"), 1.0)}} and first.seconds > 0
    again = measured(Counted("a"), [toy], ["RR@10"], HOW, "a")
    assert again.values == first.values and again.seconds == 0
    for differs in (
        lambda: measured(ranker, [toy], ["AP"], HOW, "a"),
        lambda: measured(ranker, [toy], ["RR@10"], Retrieving(None, 5), "a"),
    ):
        before = ranker.asked
        differs()
        assert ranker.asked == before + 1
    other = Counted("b")
    measured(other, [toy], ["RR@10"], HOW, "a")
    assert other.asked == 1
    unknown = Counted(None)  # does not say what its runs depend on
    for _ in range(2):
        measured(unknown, [toy], ["RR@10"], HOW, "a")
    assert unknown.asked == 2


def test_a_fusion_of_run_files_is_another_run_where_it_is_cut_elsewhere(toy: Collection, tmp_path: Path):
    for name in ("a", "b"):
        write_run(tmp_path / f"{name}.trec", {"q1": [(f"d{n}", -float(n)) for n in range(1, 6)]}, name)
    both = Fusion([str(tmp_path / "a.trec"), str(tmp_path / "b.trec")])
    assert len({Retrieving(None, depth).key(toy, both) for depth in (2, 3, 3)}) == 2
    assert [len(both.rank(toy, ["q1"], depth)["q1"]) for depth in (2, 3)] == [2, 3]


def test_a_measure_of_ones_own_that_was_changed_is_measured_anew(
    toy: Collection, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    for value in (0.5, 0.25, 0.25):
        ranker = Counted("a")
        own = f"import ir_measures\nSame = ir_measures.define_byquery(lambda qrels, run: {value}, name='Same')\n"
        (tmp_path / "changing_measure.py").write_text(own)
        monkeypatch.delitem(sys.modules, "changing_measure", raising=False)
        importlib.invalidate_caches()
        found = measured(ranker, [toy], ["changing_measure.Same"], HOW, "a").values["toy.test"]["changing_measure.Same"]
        assert set(found.values()) == {value}
    assert ranker.asked == 0


def test_a_broken_file_of_scores_is_measured_anew(toy: Collection, own_cache: Path):
    measured(Counted("a"), [toy], ["RR@10"], HOW, "a")
    (path,) = (own_cache / "scores").iterdir()
    path.write_text("x")
    again = Counted("a")
    assert measured(again, [toy], ["RR@10"], HOW, "a").values["toy.test"]["RR@10"]["q1"] == 1 and again.asked == 1


def settings(folder: Path, model: str, **changes: object) -> object:
    retriever = {"_target_": "uar.retrievers.bi_encoder.encoder.BiEncoder", "model": model}
    given = {**SETTINGS, "retriever": retriever, "expand": {}, "rerank": {}, "baselines": ["bm25", "untrained"], **changes}
    return OmegaConf.create(given)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return tiny_bert(tmp_path / "model")


def test_a_training_is_compared_with_bm25_and_with_what_it_began_with(
    toy: Collection, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO)
    cfg = settings(tmp_path, model)
    untrained = Evaluator(cfg, tmp_path / "before").evaluate([toy], BiEncoder(model))["toy.test"]
    loads: list[dict] = []
    make = module.hydra.utils.instantiate
    monkeypatch.setattr(module.hydra.utils, "instantiate", lambda config, **how: loads.append(config) or make(config, **how))

    def trained(run: str) -> dict:
        retriever = BiEncoder(model)
        compared = Baselines(cfg, retriever)
        with torch.no_grad():
            for weight in retriever.parameters():
                weight.mul_(-1.7)
        evaluator = Evaluator(cfg, tmp_path / run)
        evaluator.evaluate([toy], retriever)
        loads.clear()
        returned = compared.compare(tmp_path / run, [toy], evaluator, retriever)
        found = json.loads((tmp_path / run / "baselines.json").read_text())
        assert found["retrieval"] == returned
        return found

    first = trained("first")
    assert sum("model" in config for config in loads) == 1
    assert first["retrieval"]["untrained"]["toy.test"] == pytest.approx(untrained)
    assert first["retrieval"]["bm25"]["toy.test"]["RR@10"] == 1.0
    ours = json.loads((tmp_path / "first" / "metrics.json").read_text())["retrieval"]["toy.test"]
    facts = first["significance"]["bm25"]["toy.test"]["RR@10"]
    assert facts["queries"] == 3 and facts["difference"] == pytest.approx(ours["RR@10"] - 1.0)
    shown = caplog.text
    assert "AP on the tests" in shown and "trained − bm25" in shown and "toy.test" in shown and "p < 0.05" in shown
    again = trained("again")
    assert loads == [] and again["seconds"] == {"bm25": 0, "untrained": 0}
    assert again["retrieval"] == first["retrieval"]


def test_where_the_given_weights_are_kept_they_are_not_measured_a_second_time(
    toy: Collection, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cfg, retriever = settings(tmp_path, model), BiEncoder(model)
    evaluator = Evaluator(cfg, tmp_path / "run")
    ours = evaluator.evaluate([toy], retriever)["toy.test"]
    update_metrics(tmp_path / "run", train={"llm": {BEFORE: 0.5, AFTER: 0.4, GIVEN_KEPT: 1}})
    monkeypatch.setattr(module.Untrained, "opened", lambda *_: pytest.fail("loaded again"))
    found = Baselines(cfg, retriever).compare(tmp_path / "run", [toy], evaluator, retriever)
    assert found["untrained"]["toy.test"] == pytest.approx({m: ours[m] for m in SETTINGS["measures"]})
    seconds = json.loads((tmp_path / "run" / "baselines.json").read_text())["seconds"]
    assert seconds["untrained"] == 0 < seconds["bm25"]


def test_a_new_evaluation_in_the_folder_removes_the_comparison(toy: Collection, model: str, tmp_path: Path):
    cfg, retriever = settings(tmp_path, model), BiEncoder(model)
    evaluator = Evaluator(cfg, tmp_path / "run")
    evaluator.evaluate([toy], retriever)
    Baselines(cfg, retriever).compare(tmp_path / "run", [toy], evaluator, retriever)
    assert (tmp_path / "run" / "baselines.json").is_file()
    evaluator.evaluate([toy], retriever)
    assert not (tmp_path / "run" / "baselines.json").exists()
    for nothing in ({"baselines": []}, {}):
        cfg = settings(tmp_path, model, **nothing)
        assert Baselines(cfg, retriever).compare(tmp_path / "run", [] if not nothing else [toy], evaluator, retriever) == {}
    assert not (tmp_path / "run" / "baselines.json").exists()


def test_what_goes_wrong_with_a_baseline_costs_no_trained_model(
    toy: Collection, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    cfg, retriever = settings(tmp_path, model, baselines=["bm25"]), BiEncoder(model)
    evaluator = Evaluator(cfg, tmp_path / "run")
    evaluator.evaluate([toy], retriever)

    def broken(*_: object) -> Run:
        raise UserError("no words of that language")

    monkeypatch.setattr(module.BM25Ranker, "rank", broken)
    assert Baselines(cfg, retriever).compare(tmp_path / "run", [toy], evaluator, retriever) == {}
    assert "baselines: not compared: no words of that language" in caplog.text


def test_fresh_adapters_are_the_model_below_them_whatever_seed_drew_them(model: str):
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(BiEncoder(model, lora_rank=2, lora_alpha=4))
    drawn = [next(w for name, w in m.named_parameters() if ".lora_A." in name) for m in made]
    assert not torch.equal(*drawn) and made[0].weights_key() == made[1].weights_key()
    with torch.no_grad():
        next(w for name, w in made[1].named_parameters() if ".lora_B." in name)[0, 0] = 0.5
    assert made[0].weights_key() != made[1].weights_key()


def values(*numbers: float) -> dict:
    return {"nDCG@10": {f"q{n}": v for n, v in enumerate(numbers)}}


def compared(ours: dict, **others: dict) -> Compared:
    """Of one test of 16 questions."""

    def mean(found: dict) -> dict:
        return {"a.test": {"nDCG@10": sum(found["nDCG@10"].values()) / 16}}

    significance = {name: compare({"a.test": ours}, {"a.test": other}) for name, other in others.items()}
    means = {**{name: mean(other) for name, other in others.items()}, "trained": mean(ours)}
    return Compared("nDCG@10", means, significance, dict.fromkeys(others, 0.0))


def test_a_model_that_is_below_what_stands_without_training_is_told():
    ours, better = values(*[0.4, 0.5] * 8), values(*[0.7, 0.9] * 8)
    chance = values(*[0.4, 0.5] * 7, 0.5, 0.5)
    found = compared(ours, bm25=better, untrained=chance)
    first, second = below(found)
    assert first.startswith("a.test: nDCG@10 0.450 of the trained retriever is below 0.800 of bm25; ")
    assert "below 0.456 of untrained, which may be chance; the training did harm" in second
    assert below(compared(ours, bm25=values(*[0.1, 0.2] * 8))) == []
    kept = replace(found, means={**found.means, KEPT: found.means["trained"]}, ours=KEPT)
    assert "0.450 of the kept retriever is below" in below(kept)[0]
    assert "kept: the weights from before training" in as_text(module.baseline_table(kept))
    told = as_text(module.baseline_table(found))
    assert "−0.350" in told and "−0.006 (p 0.33)" in told and found.spent() == "bm25 from the cache, untrained from the cache"


def test_the_parts_of_a_set_that_counts_as_one_are_one_row():
    parts = [slug(reference) for reference in expand("beir-cqadupstack")]
    ours, theirs = ({part: values(*[v + at / 100 for at in range(3)]) for part in parts} for v in (0.3, 0.5))
    means = {"bm25": _means(theirs), "trained": _means(ours)}
    found = Compared("nDCG@10", means, {"bm25": compare(ours, theirs)}, {"bm25": 1.5})
    assert [line.partition(":")[0] for line in below(found)] == ["beir-cqadupstack"]
    table = module.baseline_table(found)
    assert table.row_count == 1 and list(table.columns[1].cells) == ["36"] and found.spent() == "bm25 1.5 s"


def test_only_known_baselines_are_taken():
    assert chosen([]) == chosen(None) == [] and chosen("bm25") == ["bm25"]
    assert chosen(["untrained", "bm25"]) == ["bm25", "untrained"]
    with pytest.raises(UserError, match=r"baselines=bm52: not known; allowed: bm25, untrained, or \[\] for none"):
        chosen(["bm25", "bm52"])
