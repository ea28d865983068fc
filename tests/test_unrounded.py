"""Scores of models in 16 bits tell passages apart whose scores differ by less than 16 bits can say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import ask
from tiny_models import tiny_bert, tiny_causal
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, RobertaConfig, RobertaForSequenceClassification

from uar.llm.models.transformers import Transformers
from uar.llm.record import Choose
from uar.machine.unrounded import unrounded, unrounded_results
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.retrievers.promptreps.chat_parts import Around
from uar.retrievers.promptreps.next_token import NextToken
from uar.tuning.cpu_training import logits_at


@pytest.mark.parametrize("shape", [(7, 64), (2, 3, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_sums_of_products_of_16_bits_have_32(shape: Sequence[int], bias: bool) -> None:
    """What 8 bits lack of a number below 8 is below 2**-6, of which 8 bits more leave 2**-15."""
    torch.manual_seed(0)
    layer, given = nn.Linear(64, 50, bias).bfloat16(), torch.randn(*shape).bfloat16()
    exact = nn.functional.linear(given.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double())
    got = unrounded(layer, given)
    assert got.dtype == torch.float32 and got.shape == (*shape[:-1], 50)
    assert (got - exact).abs().max() < 2**-15 < 2**-10 < (layer(given) - exact).abs().max()
    assert unrounded(layer.double(), given).dtype == torch.float64


def test_a_layer_is_as_before_after_the_block_and_numbers_are_learned_in_it() -> None:
    layer = nn.Linear(8, 1)
    given = torch.randn(3, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(given).dtype == torch.bfloat16
        with unrounded_results(layer):
            scores = layer(given)
        assert scores.dtype == torch.float32 and layer(given).dtype == torch.bfloat16
    scores.sum().backward()
    assert given.grad is not None and torch.equal(given.grad, layer.weight.detach().expand(3, 8))


def given_to(layer: nn.Module) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    return seen


def exact(layer: Any, given: torch.Tensor) -> torch.Tensor:
    return given.double() @ layer.weight.double().T


def test_a_language_model_in_bf16_chooses_by_its_last_states(tmp_path: Path) -> None:
    engine = Transformers(tiny_causal(tmp_path / "model", LlamaConfig), dtype="bf16")
    engine.tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    head = engine.model.get_output_embeddings()
    seen, choices = given_to(head), tuple("abcdefgh")
    (reply,) = ask(engine, [Choose((("user", "Bees?"),), choices)])
    states = seen[-1][0, -1]  # whose logits are below 16: to 2**-5 in 16 bits, and to 2**-14
    assert states.dtype == torch.bfloat16
    wanted = exact(head, states).log_softmax(-1)[engine.tokenizer.convert_tokens_to_ids(list(choices))]
    got = reply.choice_logprobs()
    np.testing.assert_allclose(
        [got[c] for c in choices], wanted.detach(), atol=1e-4
    )  # logits below 16: 2**-5 of them in 16 bits, and 2**-14


def test_next_tokens_of_promptreps_are_not_rounded(tmp_path: Path) -> None:
    model = NextToken(tiny_causal(tmp_path / "model", LlamaConfig), None, "bf16", None)
    ((_, states, logits),) = model.read([[5, 6, 7]], Around((), (8,)))
    wanted = exact(model._model.get_output_embeddings(), states)
    np.testing.assert_allclose(logits, wanted.detach(), atol=1e-4)


@pytest.mark.parametrize("shared", [0, 4])
def test_what_a_language_model_learns_from_is_not_rounded(tmp_path: Path, shared: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_causal(tmp_path / "model", LlamaConfig), dtype=torch.bfloat16)
    seen = given_to(model.get_output_embeddings())
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7, 8]])
    logits = logits_at(model, ids, torch.ones_like(ids), torch.tensor([4, 5]), shared)
    wanted = exact(model.get_output_embeddings(), seen[-1])
    np.testing.assert_allclose(logits.detach(), wanted.detach(), atol=1e-4)
    logits.square().sum().backward()
    assert model.get_input_embeddings().weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_cross_encoder_in_bf16_tells_pairs_apart(tmp_path: Path, kind: str) -> None:
    place = tiny_bert(tmp_path / "model")
    if kind == "roberta":
        size = {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "vocab_size": 400,
        }
        RobertaForSequenceClassification(RobertaConfig(num_labels=1, **size)).save_pretrained(place)
    model = CrossEncoder(place, length=24).eval()
    pairs = [(np.arange(5, 9), np.arange(n, n + 9)) for n in range(9, 200)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        scores = model(pairs)
    assert not torch.equal(scores, scores.bfloat16().float())
    assert len(scores.unique()) > len(scores.bfloat16().unique())
