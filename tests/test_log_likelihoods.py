"""Log-likelihoods of every kind of causal model: what a text gets beside others is what it gets alone."""

import json
import logging
import random
from pathlib import Path

import pytest
import torch
import transformers
from asking import ask, nats
from tiny_models import prepending_tokenizer, tiny_causal, tiny_llama

from uar.errors import EngineError
from uar.llm.models.log_likelihoods import LogLikelihoods
from uar.llm.models.tokens import prefix_ids, target_ids
from uar.llm.models.transformers import Transformers
from uar.llm.record import Choose, Generate, Outcome, Score

CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
WINDOWED = {
    "Mistral": {"sliding_window": 24},
    "Gemma2": {"sliding_window": 24, "head_dim": 8},
    "Gemma3Text": {"sliding_window": 24, "head_dim": 8},
    "GptOss": {"sliding_window": 24, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Phi3": {"sliding_window": 24},
}
WITH_STATE = {
    "Lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "Qwen3Next": {"head_dim": 8, **EXPERTS, **LINEAR},
    "Mamba": {},
    "Mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "Jamba": {"num_experts": 2, "attn_layer_offset": 1, "attn_layer_period": 2},
}
OTHERS = {
    "Llama": {},
    "Bloom": {},  # takes no mask of a packed row
    "GPTNeo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},  # no logits_to_keep
}


def requests() -> list[Score]:
    """Two targets each after prefixes of 3 to 70 characters."""
    rng = random.Random(0)

    def text(length: int) -> str:
        return "".join(rng.choices("abcdefgh ", k=length))

    return [Score(prefix, f" {text(n)}") for prefix in map(text, (3, 40, 9, 16, 70, 12)) for n in (5, 3)]


def alone(engine: Transformers, request: Score) -> float:
    """Mean log-likelihood of the target by a forward pass of one text."""
    prefix, target = (engine.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (request.prefix, request.target))
    with torch.inference_mode():
        logits = engine.model(torch.tensor([prefix + target])).logits[0].float()
    return float(logits[len(prefix) - 1 : -1].log_softmax(-1)[range(len(target)), target].mean())


@pytest.mark.parametrize("kind", [*WINDOWED, *WITH_STATE, *OTHERS])
def test_a_text_gets_beside_others_what_it_gets_alone(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    options = (WINDOWED | WITH_STATE | OTHERS)[kind]
    folder = tiny_causal(tmp_path / "model", getattr(transformers, f"{kind}Config"), **options)
    engine = Transformers(folder, dtype="fp32", max_tokens=200)
    asked = requests()
    replies = ask(engine, asked)
    assert nats(replies) == pytest.approx([alone(engine, request) for request in asked], abs=2e-4)
    shared = sum(reply.tokens_cached > 0 for reply in replies)
    if kind == "Llama":
        assert shared == 6 and "one text a row" not in caplog.text
    elif kind in WINDOWED:
        assert shared == 4 and "more than 24 tokens, its window, one a row" in caplog.text  # prefixes of 3, 9, 12 and 16
    elif kind in WITH_STATE or kind in OTHERS:
        assert shared == 0 and f"{folder} is read one text a row, not packed" in caplog.text


@pytest.mark.parametrize("kind", ["Mistral", "Lfm2"])
def test_choices_of_models_that_are_not_packed(tmp_path: Path, kind: str) -> None:
    options = (WINDOWED | WITH_STATE)[kind]
    engine = Transformers(tiny_causal(tmp_path / "model", getattr(transformers, f"{kind}Config"), **options), dtype="fp32")
    engine.tokenizer.chat_template = CHAT
    chats = [Choose((("user", text),), ("a", "b", "c")) for text in ("Bees?", "How do bees " * 5)]
    for request, reply in zip(chats, ask(engine, chats), strict=True):
        ids = engine.tokenizer(f"user: {request.messages[0][1]}\n")["input_ids"]
        with torch.inference_mode():
            values = engine.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        wanted = {c: float(values[engine.tokenizer.convert_tokens_to_ids(c)]) for c in request.choices}
        assert reply.choice_logprobs() == pytest.approx(wanted, abs=2e-4)


def test_a_target_is_tokenised_as_in_the_whole_text(tmp_path: Path) -> None:
    folder = tiny_causal(tmp_path / "model", transformers.LlamaConfig, prepending_tokenizer())
    engine = Transformers(folder, dtype="fp32")
    request = Score("a fact: bees", " hum a lot")
    assert engine.tokenizer.tokenize("bees hum") == ["▁bees", "▁hum"]
    assert engine.tokenizer.tokenize(" hum") == ["▁", "▁hum"]  # as it would be alone
    whole = engine.tokenizer(request.prefix + request.target)["input_ids"]
    prefix = prefix_ids(engine.tokenizer, request.prefix)
    target = target_ids(engine.tokenizer, request, prefix)
    assert prefix + target == whole and engine.tokenizer.convert_ids_to_tokens(target) == ["▁hum", "▁a", "▁lot"]
    with torch.inference_mode():
        logits = engine.model(torch.tensor([whole])).logits[0].float()
    picked = logits[len(prefix) - 1 : -1].log_softmax(-1)[range(3), target]
    (reply,) = ask(engine, [request])
    assert json.loads(reply.output)["tokens"] == 3
    assert reply.mean_logprob() == pytest.approx(float(picked.mean()), abs=1e-4)


def test_a_target_that_shares_a_token_with_its_prefix_is_refused_alone(tmp_path: Path) -> None:
    folder = tiny_causal(tmp_path / "model", transformers.LlamaConfig, prepending_tokenizer())
    bad, empty, good = ask(Transformers(folder, dtype="fp32"), [Score("be", "es"), Score("bees", ""), Score("be", " a")])
    for reply in (bad, empty):
        assert reply.outcome == Outcome.ERROR and "begin with a space" in reply.output and "\n" not in reply.output
    assert good.outcome == Outcome.OK


ENDS = [{"tokenizer": "c"}, {"generation": "c"}, {"config": "c"}, {"tokenizer": "a", "generation": "c"}]


@pytest.mark.parametrize("ends", ENDS)
def test_a_text_ends_where_the_tokenizer_or_the_config_says(tmp_path: Path, ends: dict[str, str]) -> None:
    """The first tokens of a greedy text are looked at, then one of them is said to be an end."""
    folder = Path(tiny_causal(tmp_path / "model", transformers.LlamaConfig))
    request = Generate((("user", "Hi."),), 12)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([tokenizer("user: Hi.\n")["input_ids"]])
    written = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=299)[0, ids.shape[1] :].tolist()
    last = next(n for n in range(2, 12) if written[n] not in written[:n])  # the first time that this token is written
    never = next(n for n in range(33, 256) if n not in written)
    number = {"c": written[last], "a": never}
    if "tokenizer" in ends:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(number[ends["tokenizer"]])
        tokenizer.save_pretrained(folder)
    for name, file in (("generation", "generation_config.json"), ("config", "config.json")):
        content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        content["eos_token_id"] = [number[ends[name]], never] if name in ends else None
        (folder / file).write_text(json.dumps(content))
    (reply,) = ask(Transformers(str(folder), dtype="fp32"), [request])
    assert (reply.outcome, reply.tokens_out) == (Outcome.OK, last)


def test_a_model_that_ends_no_text_is_one_line(tmp_path: Path) -> None:
    folder = Path(tiny_llama(tmp_path / "model", chat_template=CHAT, eos_token=None, bos_token=None, unk_token=None))
    for file in ("config.json", "generation_config.json"):
        if (folder / file).exists():
            content = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps(content | {"eos_token_id": None, "bos_token_id": None}))
    engine = Transformers(str(folder), dtype="fp32")
    with pytest.raises(EngineError, match="names a token that ends a text") as error:
        ask(engine, [Generate((("user", "Hi."),), 12)])
    assert "\n" not in str(error.value)
    assert nats(ask(engine, [Score("Bees", " hum")]))  # which no end is needed for


def test_a_model_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The cache remembers what came of it, until the weights are others."""
    monkeypatch.setenv("UAR_CACHE", str(tmp_path / "cache"))
    tried: list[int] = []
    trial = LogLikelihoods._trial
    monkeypatch.setattr(LogLikelihoods, "_trial", lambda self: tried.append(1) or trial(self))
    bloom, llama = (tiny_causal(tmp_path / name, getattr(transformers, f"{name}Config")) for name in ("Bloom", "Llama"))
    found = [Transformers(model, dtype="fp32")._likelihoods.packed_length for model in (bloom, llama, bloom, llama)]
    assert (found, len(tried)) == ([0, None, 0, None], 2)
