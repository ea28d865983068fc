"""Two processes with batch B take the step of one process with batch 2B, for every loss."""

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from commands import FORKS
from numbered_passages import NumberedPassages
from tiny_models import MINILM, tiny_mlm
from transformers import AutoModel

import uar.losses
from uar.collections.token_ids import Tokens
from uar.labels import Example, Stage
from uar.losses import Loss, name_of
from uar.machine.model_files import locate
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.colbert.colbert_encoder import ColBERT
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.retrievers.splade.splade_encoder import Splade
from uar.storage.files import write_json
from uar.training.batches import BatchStream
from uar.training.further_terms import FurtherTerms
from uar.training.further_texts import FurtherTexts
from uar.training.module import RetrieverModule

WORDS = 2_000  # of MiniLM's, so that its weights are written in a moment
LOSSES: list[Loss] = [
    getattr(uar.losses, n)
    for n in ("contrastive", "joint", "kl", "kl_contrastive", "lse_pair", "margin_mse", "rank_net", "summed_marginal")
]
CASES = [(loss, cached, False, "bi") for loss in LOSSES for cached in (False, True)]
CASES += [(loss, False, True, "bi") for loss in LOSSES]
CASES += [(uar.losses.contrastive, False, True, "cross"), (uar.losses.kl, True, True, "cross")]
CASES += [(uar.losses.contrastive, cached, bare, "sparse") for cached, bare in ((False, True), (True, False))]
CASES += [(uar.losses.contrastive, False, True, "late"), (uar.losses.kl, True, False, "late")]
CASES += [(uar.losses.contrastive, False, True, "wordings"), (uar.losses.kl, True, True, "wordings")]
WEIGHTS = (1.0, 0.5, 2.0, 0.25, 1.5, 0.75)


def examples(bare: bool = False) -> list[Example]:
    """Uneven numbers of positives; passages d3 and d4 are in several queries' lists. `bare`: two queries have no positive and
    no utility, so that they do not count, and all have weights of their own."""
    made = []
    for i in range(6):
        positives = tuple(f"d{10 * i + j}" for j in range(1 + i % 3))
        negatives = ("d3", f"d{10 * i + 7}", f"d{10 * i + 8}", "d4") if i else ("d7", "d8")
        utility = tuple(float(len(positives) + 4 - j) / 3 for j in range(len(positives) + len(negatives)))
        if bare and i in (1, 2):
            made.append(Example(f"q{i}", (), (*positives, *negatives), "llm", weight=WEIGHTS[i]))
            continue
        weight = WEIGHTS[i] if bare else 1.0
        others = tuple(d for d in negatives if d not in positives)
        made.append(Example(f"q{i}", positives, others, "llm", utility=utility, weight=weight))
    return made


def tokens(folder: Path) -> Tokens:
    """60 rows of 5 to 14 tokens."""
    if not (folder / "manifest.json").is_file():
        generator = np.random.default_rng(0)
        ends = np.concatenate([[0], np.cumsum(generator.integers(5, 15, 60))])
        generator.integers(1000, WORDS, ends[-1], dtype=np.uint16).tofile(folder / "ids.bin")
        np.save(folder / "ends.npy", ends)
        write_json(folder / "manifest.json", {"dtype": "uint16", "tokens": int(ends[-1])})
    return Tokens(folder)


def model(folder: Path) -> str:
    """MiniLM's first layer and first words."""
    place = folder / "model"
    if not place.is_dir():
        shutil.copytree(locate(MINILM), place)
        encoder = AutoModel.from_pretrained(place, num_hidden_layers=1)
        encoder.resize_token_embeddings(WORDS)
        encoder.save_pretrained(place)
    return str(place)


def _further(kept: Tokens) -> FurtherTexts:
    """Two variants of each query, and misleading texts of some positives."""
    variants = {f"q{i}": range(6 + 2 * i, 8 + 2 * i) for i in range(6)}
    return FurtherTexts(kept, variants, {"d10": range(20, 22), "d11": range(22, 23), "d50": range(23, 26)})


def step(folder: Path, loss: Loss, cached: bool, bare: bool, kind: str, rank: int, world: int) -> dict[str, torch.Tensor]:
    """Gradients, and the weights after a step of AdamW, of process `rank` of `world`. `kind`: bi, cross, late, sparse, or
    wordings, a bi-encoder whose queries have two variants each."""
    kept = tokens(folder)
    rows = NumberedPassages({f"d{i}": i for i in range(60)})
    stage = Stage("llm", examples(bare), 1, "all")
    further = _further(kept) if kind == "wordings" else None
    stream = BatchStream(stage, kept, {f"q{i}": i for i in range(6)}, kept, rows, 6 // world, 5, 0, rank, world, 0, further)
    if kind == "sparse":
        retriever = Splade(str(folder / "mlm"), dropout=0.0, token_budget=40, query_penalty=0.1, passage_penalty=0.2)
    else:
        late = partial(ColBERT, dim=16, query_length=16, passage_length=16)
        cross = partial(CrossEncoder, others=0)  # passages of other queries are of the process' batch
        made = {"bi": BiEncoder, "wordings": BiEncoder, "cross": cross, "late": late}[kind]
        retriever = made(model(folder), dropout=0.0, token_budget=40)
    if kind == "cross":  # before training the scores of pairs have nearly one gradient, of whose sum fp32 leaves few digits
        retriever.double()
    optimizer = partial(torch.optim.AdamW, lr=1e-3, eps=1e-4)
    module = RetrieverModule(retriever, loss, optimizer, 0.0, "llm", grad_cache=cached, terms=FurtherTerms(0.7, 0.4))
    logged: list[torch.Tensor] = []
    module.log = lambda name, value, **__: logged.append(value) if name == "llm/loss" else None  # there is no Trainer
    module.train()
    (batch,) = stream
    module.training_step(batch, 0).backward()
    weights = {n: p for n, p in module.named_parameters() if p.requires_grad}
    for weight in weights.values():
        if world > 1:
            dist.all_reduce(weight.grad)
            weight.grad /= world  # the mean that DDP takes
    gradients = {f"gradient of {n}": p.grad.clone() for n, p in weights.items()}
    optimizer(list(weights.values())).step()
    return {"loss": logged[0]} | gradients | {n: p.detach().clone() for n, p in weights.items()}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    for number, (loss, cached, bare, kind) in enumerate(CASES):
        torch.save(step(Path(folder), loss, cached, bare, kind, rank, 2), f"{folder}/{number}.{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made of each case."""
    folder = tmp_path_factory.mktemp("two")
    tokens(folder)
    model(folder)
    tiny_mlm(folder / "mlm", vocab_size=WORDS)
    mp.start_processes(worker, args=(str(folder),), nprocs=2, start_method=FORKS.get_start_method())
    return folder


NAMES = [f"{kind}-{name_of(x)}-{'cached' if c else 'plain'}{'-bare' if b else ''}" for x, c, b, kind in CASES]


@pytest.mark.parametrize("number", range(len(CASES)), ids=NAMES)
def test_two_processes_take_the_step_of_one(two: Path, number: int):
    loss, _, bare, kind = CASES[number]
    alone = step(two, loss, cached=False, bare=bare, kind=kind, rank=0, world=1)
    largest = float(max(v.abs().max() for n, v in alone.items() if n.startswith("gradient")))
    assert largest > 1e-5
    for rank in range(2):
        for name, value in torch.load(two / f"{number}.{rank}").items():
            size = float(alone[name].abs().max())
            torch.testing.assert_close(
                value, alone[name], rtol=1e-5, atol=1e-5 * size + 1e-7 * largest, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_the_passages_of_a_step_lie_on_both_processes(two: Path):
    kept, rows = tokens(two), NumberedPassages({f"d{i}": i for i in range(60)})
    queries = {f"q{i}": i for i in range(6)}
    left, right = (
        next(iter(BatchStream(Stage("llm", examples(), 1, "all"), kept, queries, kept, rows, 3, 5, 0, rank, 2)))
        for rank in (0, 1)
    )
    assert set(left.rows.tolist()) & set(right.rows.tolist())
    assert len({int((t >= 0).sum()) for b in (left, right) for t in b.targets}) > 1
