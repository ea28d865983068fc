"""sentence-transformers' trainers, on the batches of train_step.py in their order."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import TrainerCallback


def train(work: Any, turns_of: Any, pipe: Any, learning_rate: float, length: int) -> None:
    """Returns when its process is ended. A cross-encoder takes ListNet's loss, the same as a contrastive one of a positive and
    the other passages of its question."""
    model, trainer, arguments, loss = KINDS[work.kind](work.model, length)
    turns = turns_of(pipe, model, work.clock)

    class Held(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            turns.take()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.step()

    class InOrder(trainer):  # type: ignore[misc, valid-type]
        def get_batch_sampler(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return BatchSampler(SequentialSampler(dataset), work.batch, drop_last=True)

    rows = [(q, passages) for batch in work.texts for q, passages in batch]
    if work.kind == "cross_encoder":
        labels = [[1] + [0] * (work.passages - 1)] * len(rows)
        columns: dict[str, list[Any]] = {"query": [q for q, _ in rows], "docs": [p for _, p in rows], "labels": labels}
    else:
        names = ["anchor", "positive", *(f"negative_{n}" for n in range(1, work.passages))]
        columns = {name: [(q, *passages)[n] for q, passages in rows] for n, name in enumerate(names)}
    with tempfile.TemporaryDirectory() as folder:
        given = arguments(
            folder,
            per_device_train_batch_size=work.batch,
            num_train_epochs=1_000,
            learning_rate=learning_rate,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=work.precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
        )
        InOrder(model, given, Dataset.from_dict(columns), loss=loss, callbacks=[Held()]).train()


def _bi_encoder(name: str, length: int) -> tuple[Any, ...]:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(name)
    model.max_seq_length = length
    return model, SentenceTransformerTrainer, SentenceTransformerTrainingArguments, MultipleNegativesRankingLoss(model)


def _cross_encoder(name: str, length: int) -> tuple[Any, ...]:
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    model = CrossEncoder(name, num_labels=1, max_length=length)
    return model, CrossEncoderTrainer, CrossEncoderTrainingArguments, ListNetLoss(model)


def _colbert(name: str, length: int) -> tuple[Any, ...]:
    from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss

    model = MultiVectorEncoder(name)
    model.max_seq_length = length
    loss = MultiVectorMultipleNegativesRankingLoss(model)
    return model, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments, loss


KINDS = {"bi_encoder": _bi_encoder, "cross_encoder": _cross_encoder, "colbert": _colbert}
