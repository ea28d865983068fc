"""Train a retriever: `python train.py label_source=mixed human_frac=0.2`."""

from uar.train import main

if __name__ == "__main__":
    main()
