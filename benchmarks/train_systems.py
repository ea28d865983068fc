"""The training loops that train_step.py compares, each in a process that waits for its turns."""

import logging
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from memory import resident
from torch import nn

LEARNING_RATE = 5e-5
LENGTH = 256  # tokens
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Work:
    """`kind`: bi_encoder, cross_encoder or colbert. `ids`, `texts`: of each batch, question by question, with its
    passages, the positive first."""

    collection: str
    model: str
    kind: str
    batch: int
    passages: int
    precision: str
    clock: str
    ids: list[list[tuple[str, list[str]]]]
    texts: list[list[tuple[str, list[str]]]]


@dataclass
class Told:
    """What a system did in its turn, or in several."""

    seconds: float = 0.0
    steps: int = 0
    waited: float = 0.0
    computed: int = 0
    padding: int = 0
    memory: int = 0
    rates: list[float] = field(default_factory=list)

    def add(self, other: "Told") -> None:
        for name in ("seconds", "steps", "waited", "computed", "padding"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.memory = max(self.memory, other.memory)
        self.rates.append(other.seconds / other.steps)


class Turns:
    """Holds a training loop until it is its turn: (dropout, steps) come through `pipe`, a Told goes back."""

    def __init__(self, pipe: Connection, model: nn.Module, clock: str) -> None:
        self._pipe, self._model, self._clock = pipe, model, CLOCKS[clock]
        self._before = _memory_now()
        self.told = Told()
        embedding: Any = next(m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings > 1_000)
        embedding.register_forward_pre_hook(lambda _, given: self._count(given[0], embedding.padding_idx or 0))

    def take(self) -> None:
        dropout, self._left = self._pipe.recv()
        for module in self._model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        self.told = Told()
        self._start = self._clock()

    def step(self) -> None:
        self.told.steps += 1
        self._left -= 1
        if not self._left:
            wait()
            self.told.seconds = self._clock() - self._start
            self.told.memory = _memory_peak() - self._before
            self._pipe.send(self.told)
            self.take()

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        iterator = iter(batches)
        while True:
            start = self._clock()
            batch = next(iterator, None)
            self.told.waited += self._clock() - start
            if batch is None:
                return
            yield batch

    def _count(self, ids: torch.Tensor, pad: int) -> None:
        if torch.is_grad_enabled():
            self.told.computed += ids.numel()
            self.told.padding += int((ids == pad).sum())


def train_uar(work: Work, pipe: Connection, cached: bool) -> None:
    """As train.py does it: its module, its stream of batches and its optimizer, under Lightning."""
    from lightning.pytorch.loggers import CSVLogger

    from uar.collections import open_collection
    from uar.labels import Example, Stage
    from uar.losses.contrastive import contrastive
    from uar.training.batches import BatchStream
    from uar.training.module import RetrieverModule
    from uar.training.optimizer import fused

    collection = open_collection(work.collection)
    retriever = retriever_of(work.kind, work.model)
    examples = [Example(q, (p[0],), tuple(p[1:]), "human") for batch in work.ids for q, p in batch]
    turns: Turns

    class Stream(BatchStream):
        def __iter__(self) -> Iterator[Any]:
            return turns.timed(super().__iter__())

    stream = Stream(
        Stage("benchmark", examples, 1_000, "one"),
        retriever.query_tokens(collection),
        collection.query_rows,
        retriever.passage_tokens(collection),
        collection.corpus,
        work.batch,
        work.passages,
        seed=0,
    )
    optimizer = fused(partial(torch.optim.AdamW, lr=LEARNING_RATE, weight_decay=0.01), work.precision)
    module = RetrieverModule(retriever, contrastive, optimizer, 0.1, "benchmark", grad_cache=cached)
    module.train()
    turns = Turns(pipe, retriever, work.clock)
    with tempfile.TemporaryDirectory() as folder:
        _lightning(work, turns, logger=CSVLogger(folder), gradient_clip_val=1.0).fit(module, stream)


def retriever_of(kind: str, model: str) -> Any:
    """The kinds with a new layer draw it from a fixed seed. Passages are cut at 256 tokens, pairs of a
    cross-encoder too, which are those of a question and its own passages."""
    from uar.retrievers.bi_encoder.encoder import BiEncoder
    from uar.retrievers.colbert.colbert_encoder import ColBERT
    from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder

    if kind == "cross_encoder":
        return CrossEncoder(model, length=LENGTH, others=0)
    if kind == "colbert":
        return ColBERT(model, passage_length=LENGTH, skip_punctuation=False)
    return BiEncoder(model)


def train_sentence_transformers(work: Work, pipe: Connection) -> None:
    from train_sentence_transformers import train

    train(work, Turns, pipe, LEARNING_RATE, LENGTH)


def train_lightning_ir(work: Work, pipe: Connection) -> None:
    from lightning_ir import BiEncoderModule, InBatchCrossEntropy
    from lightning_ir.data import TrainBatch
    from lightning_ir.models import DprConfig

    pooling = {"query_pooling_strategy": "mean", "doc_pooling_strategy": "mean"}
    config = DprConfig(query_length=64, doc_length=256, normalize=True, projection=None, **pooling)
    loss = InBatchCrossEntropy("first", "all_and_non_first")
    module = BiEncoderModule(work.model, config=config, loss_functions=[loss])
    module.set_optimizer(torch.optim.AdamW, lr=LEARNING_RATE)
    targets = torch.tensor([[1] + [0] * (work.passages - 1)] * work.batch)
    turns = Turns(pipe, module, work.clock)

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            for ids, texts in zip(work.ids, work.texts, strict=True):
                named = {"query_ids": [q for q, _ in ids], "doc_ids": [d for _, d in ids]}
                yield TrainBatch([q for q, _ in texts], [d for _, d in texts], targets=targets, **named)

    _lightning(work, turns, logger=False, gradient_clip_val=1.0).fit(module, Batches())


def _lightning(work: Work, turns: Turns, **more: Any) -> Any:
    import lightning as L

    class Held(L.Callback):
        def on_train_start(self, *_: Any) -> None:
            turns.take()

        def on_train_batch_end(self, *_: Any) -> None:
            turns.step()

    return L.Trainer(
        precision="bf16-mixed" if work.precision == "bf16" else "32-true",
        devices=1,
        max_epochs=1_000,
        callbacks=[Held()],
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        **more,
    )


SYSTEMS: dict[str, Callable[[Work, Connection], None]] = {
    "sentence-transformers": train_sentence_transformers,
    "lightning-ir": train_lightning_ir,
    "uar": partial(train_uar, cached=False),
    "uar-cached": partial(train_uar, cached=True),
}


def _child(system: str, work: Work, pipe: Connection) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    SYSTEMS[system](work, pipe)


class System:
    """A training process that waits for its turns."""

    def __init__(self, name: str, work: Work, folder: str = "") -> None:
        self._pipe, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_child, args=(name, work, other), daemon=True)
        sys.path[:0] = [folder] if folder else []  # the process starts with this path
        self._process.start()
        del sys.path[: 1 if folder else 0]
        other.close()

    def run(self, dropout: float, steps: int) -> Told:
        self._pipe.send((dropout, steps))
        told: Told = self._pipe.recv()
        return told

    def close(self) -> None:
        self._process.kill()  # Lightning would go on after a gentler signal
        self._process.join()


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _memory_now() -> int:
    """Bytes of this process, or of the GPU; the peak is counted from here."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def _memory_peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident(peak=True)
