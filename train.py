"""Train a retriever: `python train.py label_source=mixed human_frac=0.2`."""

from uar.launch.entry import entry
from uar.launch.quick_imports import without_unused

with without_unused():
    from uar.training.train_run import train

if __name__ == "__main__":
    entry("train", train)
