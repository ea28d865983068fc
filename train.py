"""Train a retriever: `python train.py label_source=mixed human_frac=0.2`."""

from uar.entry import entry
from uar.quick_imports import without_unused

with without_unused():
    from uar.training.run import train

if __name__ == "__main__":
    entry("train", train)
