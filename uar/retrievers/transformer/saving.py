"""A transformer with its tokenizer as a folder that sentence-transformers reads."""

from pathlib import Path
from typing import Any

from uar.retrievers.transformer.lora import merged_state
from uar.storage.files import write_json


def save_tokenizer(folder: Path, tokenizer: Any, length: int | None = None) -> None:
    """`length`: tokens at which those who load it cut; None is its own."""
    tokenizer.backend_tokenizer.no_truncation()  # what the last call left behind
    tokenizer.backend_tokenizer.no_padding()
    before, tokenizer.model_max_length = tokenizer.model_max_length, length or tokenizer.model_max_length
    tokenizer.save_pretrained(folder)
    tokenizer.model_max_length = before


def save_encoder(folder: Path, encoder: Any, tokenizer: Any, length: int, lower_case: bool) -> None:
    """A transformer without adapters, its tokenizer, and at how many tokens sentence-transformers cuts its texts."""
    encoder.save_pretrained(folder, state_dict=merged_state(encoder))
    save_tokenizer(folder, tokenizer)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": lower_case})
