# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. How much human labelling is worth it?
#
# People's labels are better and cost money. This notebook trains with the LLM's labels and human labels for a growing share of
# the questions, and sets what each share brings against what it costs. It uses the packaged collection and its shipped
# annotations; `dataset=local`, `dataset.path=DIR` and `dataset.test=[test]` in `common` take yours.

# %%
import json
import os
from pathlib import Path
from statistics import fmean, stdev

import matplotlib.pyplot as plt
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from uar.launch.entry import composed
from uar.launch.sweeps import config_hash, once
from uar.training.train_run import train

QUICK = os.environ.get("UAR_QUICK") == "1"  # few questions and steps, to see that it works
WORK = Path("outputs/human_budget")
SHARES = (0, 1) if QUICK else (0, 0.1, 0.2, 0.5, 1)
SEEDS = (0,) if QUICK else (0, 1, 2)
PRICE = 0.09  # USD a judged pair, as in the paper

# %% [markdown]
# ## The runs
# `label_source=mixed` trains on the LLM's labels first and then, in a second stage, on the human labels of `human_frac` of the
# questions. The sample of a smaller share is part of that of a larger one. A run that is done is not run again; one of other
# options or other data is another run. The same as a sweep:
# `python train.py -m label_source=mixed human_frac=0,0.1,0.2,0.5,1 seed=0,1,2`.

# %%
common = ["label_source=mixed", "rag=off", "logger=none", "dataset.test=[mini:test]"]
if QUICK:
    common += ["limit=8", "training.batch_size=4", "training.dev_queries=2", "trainer.max_steps=2"]


def run(share: float, seed: int) -> Path:
    cfg = composed("train", *common, f"human_frac={share}", f"seed={seed}")
    folder = WORK / f"{share:g}-{seed}-{config_hash(cfg)[:8]}"
    once(train, cfg, folder)  # where it is not done
    return folder


folders = {share: [run(share, seed) for seed in SEEDS] for share in SHARES}

# %% [markdown]
# ## What a share brings, and what it costs
# Only pairs that people had to judge are counted: the pools of the questions in the human stage.

# %%


def ndcg(folder: Path) -> float:
    (values,) = json.loads((folder / "metrics.json").read_text())["retrieval"].values()
    return float(values["nDCG@10"])


def judged_pairs(folder: Path) -> int:
    rows = pq.read_table(folder / "labels.parquet", columns=["stage"]).to_pylist()
    return sum(row["stage"] == "human" for row in rows)


shown = Table("human share", "pairs judged", "cost (USD)", "nDCG@10", "deviation over seeds", "a point costs (USD)")
points = []
for share, found in folders.items():
    scores = [ndcg(folder) for folder in found]
    cost = PRICE * fmean(judged_pairs(folder) for folder in found)
    mean, spread = fmean(scores), stdev(scores) if len(scores) > 1 else 0.0
    points.append((share, cost, mean, spread))
    gained = 100 * (mean - points[0][2])
    a_point = f"{cost / gained:.2f}" if gained > 0 and share else "–"
    shown.add_row(f"{share:.0%}", f"{cost / PRICE:.0f}", f"{cost:.2f}", f"{mean:.3f}", f"{spread:.3f}", a_point)
Console(width=120).print(shown)

# %%
figure, axes = plt.subplots(figsize=(5, 3.5))
axes.errorbar([p[1] for p in points], [p[2] for p in points], yerr=[p[3] for p in points], marker="o", capsize=3)
axes.set(xlabel="Cost of human labels (USD)", ylabel="nDCG@10 of the test questions")
plt.show()

# %% [markdown]
# ## How to read it
# Differences smaller than the deviation over seeds are noise: take more seeds or more test questions
# (`python -m uar.evaluate ... baseline=RUN_FOLDER` gives paired tests). If the curve is still steep where you stop, label
# more. If it is flat, spend on a larger annotator or on more questions instead. `label_source.allocation=uncertainty` gives
# people the questions on which the LLM is least sure; notebook 2 says whether that is likely to pay.
