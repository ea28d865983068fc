"""Annotate runs of tests: what they are started with, and what they leave."""

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from conftest import SMOLLM2
from llm_server import LLMServer, Messages
from tokenizers import Tokenizer

from uar.machine.model_files import locate

Command = Callable[..., subprocess.CompletedProcess[str]]
KEY = "sk-planted-5208"
QUIET = "logger=none"  # W&B takes twice as long as all the rest


def asking(server: LLMServer) -> list[str]:
    return ["llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=gold", "llm.backoff=0.01"]


def labels(folder: Path) -> list[dict]:
    return pq.read_table(folder / "labels.parquet").to_pylist()


def told(folder: Path, name: str = "ledger") -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@cache
def smollm2() -> Tokenizer:
    return Tokenizer.from_file(f"{locate(SMOLLM2)}/tokenizer.json")


def tokens(text: str) -> int:
    return len(smollm2().encode(text, add_special_tokens=False).ids)


def smollm2_ids(messages: Messages) -> list[int]:
    """Token ids of a chat by the template of SmolLM2, written anew."""
    first = {"role": "system", "content": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"}
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in (first, *messages)]
    return smollm2().encode("".join(turns) + "<|im_start|>assistant\n", add_special_tokens=False).ids
