"""Encoders whose weights have four bits: refused where they could not learn, else adapters over them do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from safetensors import safe_open
from tiny_models import tiny_bert, tiny_llama

from uar.errors import UserError
from uar.launch.entry import composed
from uar.launch.one_line import one_line
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.transformer import four_bit
from uar.training.exported import restore

TEXTS = [np.array([5, 6, 7, 8, 9, 10]), np.array([8, 9])]


def vectors(retriever: BiEncoder) -> torch.Tensor:
    with torch.inference_mode():
        return retriever.eval()(TEXTS)


def test_without_the_package_or_adapters_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = tiny_bert(tmp_path / "start")
    with pytest.raises(UserError, match=r"^retriever.dtype=4bit: such weights do not learn; give retriever.lora_rank=16$"):
        BiEncoder(model, dtype="4bit")
    monkeypatch.setattr(four_bit, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"bitsandbytes is not installed; run: pip install 'uar\[four_bit\]'$") as error:
        BiEncoder(model, dtype="4bit", lora_rank=2)
    assert one_line(error.value) == str(error.value)


@pytest.mark.parametrize("make", [tiny_bert, tiny_llama])
def test_adapters_learn_over_weights_of_four_bits_and_are_merged_into_whole_ones(tmp_path: Path, make):
    pytest.importorskip("bitsandbytes")
    options = [f"retriever.model={make(tmp_path / 'start')}", "retriever.normalize=true", "retriever.lora_rank=4"]
    cfg = composed("train", "retriever=bi_encoder", *options, "retriever.dtype=4bit")
    retriever, fresh = (instantiate(cfg.retriever, _convert_="all") for _ in range(2))
    packed = [weight for weight in retriever.encoder.parameters() if weight.dtype == torch.uint8]
    assert packed and not any(weight.requires_grad for weight in packed)
    before, whole = vectors(retriever), BiEncoder(str(tmp_path / "start"), normalize=True)
    assert 0.8 < (before * vectors(whole)).sum(1).min() < 0.99999  # four bits keep less than all

    retriever.train()(TEXTS).sum().backward()  # after texts were encoded
    adapters = {name: weight for name, weight in retriever.named_parameters() if weight.requires_grad}
    assert all(".lora_" in name and weight.grad is not None for name, weight in adapters.items())
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in adapters.values():
            weight.add_(0.05 * torch.randn_like(weight))
    trained = vectors(retriever)
    assert (trained * before).sum(1).min() < 0.999

    state = {name: weight for name, weight in retriever.state_dict().items() if name in adapters}  # what a checkpoint has
    fresh.load_state_dict(fresh.state_dict() | state)
    torch.testing.assert_close(vectors(fresh), trained)
    retriever.save(tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert (vectors(BiEncoder(str(tmp_path / "model"))) * trained).sum(1).min() > 0.999  # bf16 keeps 8 bits
    restore(cfg, tmp_path / "model", fresh)
    assert (vectors(fresh) * trained).sum(1).min() > 0.999
