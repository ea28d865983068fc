"""Models that bring code of their own are refused, without a question; so are folders of something else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel, AutoTokenizer

from uar.errors import EngineError, MissingModel, UserError
from uar.llm.models.transformers import Transformers
from uar.machine.model_files import locate, pretrained
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.colbert.colbert_encoder import ColBERT
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.retrievers.model_folder import open_model
from uar.retrievers.splade.splade_encoder import Splade


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose code lies beside its weights; reading an answer from stdin fails."""

    def asked(*_: object) -> str:
        raise AssertionError("a question on stdin")

    monkeypatch.setattr("builtins.input", asked)
    code = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel", "AutoModelForCausalLM": "own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": code}))
    tokenizer = {"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}, "tokenizer_class": "OwnTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (tmp_path / "own.py").write_text("raise SystemExit('this ran')")
    return tmp_path


@pytest.mark.parametrize("kind", [AutoConfig, AutoModel, AutoTokenizer])
def test_code_of_a_model_is_never_run(foreign: Path, kind: type):
    with pytest.raises(UserError, match="it brings code of its own, which is never run; choose one"):
        pretrained(kind, foreign)


def test_a_retriever_and_an_llm_with_code_of_their_own_are_one_line(foreign: Path):
    with pytest.raises(UserError, match="code of its own") as retriever:
        BiEncoder(str(foreign))
    with pytest.raises(EngineError, match="llm.model=.*code of its own") as llm:
        Transformers(str(foreign))
    assert all("\n" not in str(error.value) for error in (retriever, llm))


def test_other_faults_of_a_model_stay_what_they_are(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody-knows-it"}))
    with pytest.raises(ValueError, match="nobody-knows-it"):
        pretrained(AutoConfig, tmp_path)


@pytest.mark.parametrize("reference", ["RUN/model", "./a", "a/b/c", "~/a"])
def test_a_path_that_is_not_there_is_no_name_on_the_hub(reference: str):
    with pytest.raises(MissingModel, match=f"model {reference}: no such path; give a model folder"):
        locate(reference)
    assert locate("BAAI/bge-small-en-v1.5") == "BAAI/bge-small-en-v1.5"


@pytest.mark.parametrize("opened", [open_model, ColBERT, CrossEncoder, Splade, Transformers])
def test_a_model_that_is_neither_here_nor_on_the_hub_names_the_folder_that_lacks_it(
    opened: Callable[[str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"model.outputs/nope: cannot be loaded \(.*\); .* the folder outputs has no nope$"):
        opened("outputs/nope")
    with pytest.raises(UserError, match=r"model.owner/nope: cannot be loaded \([^\n]*\)$"):
        opened("owner/nope")


def test_the_folder_of_a_run_is_no_model_and_the_one_in_it_is_named(tmp_path: Path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(MissingModel, match="a folder, but not of a model; give a folder with one of config.json"):
        locate(str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text("[]")
    for kind in (open_model, Transformers):
        with pytest.raises(UserError, match=f"a folder, but not of a model; give {tmp_path}/model"):
            kind(str(tmp_path))
    assert locate(str(tmp_path / "model")) == str(tmp_path / "model")
