"""A folder of adapters names a model: it is merged with the base that it was made on, and with no other."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from tuning_runs import tiny_chat

from uar.errors import UserError
from uar.llm.models.transformers import Transformers
from uar.llm.record import Generate
from uar.machine.model_files import identity, locate, name_base

LAYER = "model.layers.0.self_attn.q_proj"


def adapters(folder: Path, base: str) -> Path:
    """Of rank 2, with random weights."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=6, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder, save_embedding_layers=False)
    name_base(folder, base, None)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> str:
    return tiny_chat(tmp_path / "base")


def test_adapters_are_merged_with_their_base(base: str, tmp_path: Path, own_cache: Path) -> None:
    folder = adapters(tmp_path / "own", base)
    merged = Path(locate(str(folder)))
    learned = load_file(folder / "adapter_model.safetensors")
    a, b = (learned[f"base_model.model.{LAYER}.lora_{part}.weight"] for part in "AB")
    before, after = (load_file(Path(f) / "model.safetensors")[f"{LAYER}.weight"] for f in (base, merged))
    assert after == pytest.approx(before + 6 / 2 * (b @ a), abs=1e-6)
    assert locate(str(folder)) == str(merged) and merged.is_relative_to(own_cache)
    engine = Transformers(str(folder), dtype="fp32")
    engine.submit(0, Generate((("user", "Hi."),), 2))
    assert engine.step()[0][1].tokens_out <= 2


def test_the_name_of_adapters_changes_with_them_and_with_their_base(base: str, tmp_path: Path) -> None:
    folder = adapters(tmp_path / "own", base)
    names = [identity(str(folder))]
    config = folder / "adapter_config.json"
    config.write_text(config.read_text() + "\n")
    names.append(identity(str(folder)))
    (folder / "base.json").unlink()  # with it another base is refused
    names.append(identity(str(folder)))
    tiny_chat(Path(base), intermediate_size=48)
    names.append(identity(str(folder)))
    assert len(set(names)) == 4 and all(name.startswith("own@") for name in names)


def test_another_base_is_refused_in_one_line(base: str, tmp_path: Path) -> None:
    folder = adapters(tmp_path / "own", base)
    made_on = identity(base)
    tiny_chat(Path(base), intermediate_size=48)
    said = rf"adapters of {made_on}, but {base} is base@\w+ here; install the model that they were made on"
    for kind in (identity, locate):
        with pytest.raises(UserError, match=said):
            kind(str(folder))
    (folder / "base.json").unlink()
    with pytest.raises(UserError, match="adapters that do not fit") as raised:
        Transformers(str(folder))
    assert "\n" not in str(raised.value)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=r"adapter_config.json or base.json cannot be read"):
        locate(str(folder))
