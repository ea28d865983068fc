"""The scale that a model was trained with, which its folder keeps for those who learn from its scores."""

from pathlib import Path

from uar.machine.model_files import locate
from uar.retrievers.trainable import Trainable
from uar.retrievers.transformer.published_files import reader
from uar.storage.files import write_json

FILE = "uar_scale.json"  # which sentence-transformers does not read


def keep_scale(folder: Path, retriever: Trainable) -> None:
    """A scale that was learned is kept as it came out."""
    write_json(folder / FILE, {"scale": float(retriever.scale)})


def trained_scale(model: str, revision: str | None, opened: Trainable) -> float:
    """Of a model by reference, and as it was opened, whose own scale counts where no training here made the files."""
    kept = reader(locate(model), revision)(FILE)
    return float(kept["scale"] if kept else opened.scale)
