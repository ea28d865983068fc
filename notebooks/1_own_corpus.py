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
# # 1. From a folder of text to a trained retriever
#
# You have text, no questions and no labels. An LLM writes the questions and labels the passages; a retriever learns from that.
# Put files into `texts/` (`.txt`, `.md`, `.rst`, `.html`, `.pdf`) and run all cells. Without a folder of yours the passages of
# the packaged collection are taken. Everything runs offline on two cores.

# %%
import json
import logging
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from uar.annotation.annotate_run import annotate
from uar.collections import open_collection
from uar.collections.text_files import write_corpus
from uar.evaluate import evaluate
from uar.launch.entry import composed
from uar.training.train_run import train

logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
logging.getLogger("uar").setLevel(logging.INFO)
QUICK = os.environ.get("UAR_QUICK") == "1"  # a few passages and steps, to see that it works
TEXTS, WORK = Path("texts"), Path("outputs/own_corpus")


def table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    shown = Table(*columns, title=title)
    for row in rows:
        shown.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=120).print(shown)


# %% [markdown]
# ## A corpus
# Each file is cut into passages of at most 120 words and of like length; short ones and copies are left out. From the command
# line: `python -m uar.corpus texts=texts out=outputs/own_corpus/corpus`.

# %%
if not TEXTS.is_dir():
    mini = open_collection("mini:train").corpus
    for doc_id in mini.ids():
        title, text = mini.parts(doc_id)
        TEXTS.mkdir(exist_ok=True)
        with (TEXTS / f"{(title or doc_id).replace('/', ' ')}.md").open("a", encoding="utf-8") as file:
            file.write(f"{text}\n\n")
corpus = WORK / "corpus"
made = write_corpus(TEXTS, corpus, words=120)
Console().print(f"{made['passages']} passages; left out: {made['left_out']}")

# %% [markdown]
# ## Questions and labels
# `questions=generate` samples passages, has the LLM write questions for each, and keeps those that find their passage again.
# Then each question gets a pool of passages from BM25, and the annotator labels them. Replies are kept in the store: run the
# cell again, and nothing is asked.

# %%
shared = [f"store={WORK / 'annotations'}", "logger=none"]
asked = ["questions=generate", f"questions.folder={WORK / 'questions'}", f"questions.passages={4 if QUICK else 80}"]
if QUICK:
    asked += ["questions.round_trip.depth=100"]
pools = [f"questions.per_passage={1 if QUICK else 2}", f"candidates.depth={2 if QUICK else 8}"]
ledger = annotate(composed("annotate", "dataset=local", f"dataset.path={corpus}", *asked, *pools, *shared), WORK / "annotate")

# %%
questions = Path(ledger["questions"]["folder"])
rows = [json.loads(line) for line in (questions / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
table("Questions that were kept", ["question", "written from"], [[row["text"], row["source"]] for row in rows[:12]])
lost = [json.loads(line) for line in (questions / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
table("and some that were not", ["question", "why"], [[row["text"], row["why"]] for row in lost[:6]])

# %% [markdown]
# Read them before you go on. A model of 135 million parameters asks simply ("who is X?"); a larger one (`llm=openai` or
# `llm=vllm`) asks better. Your own wording is a file: `questions.writer.template=FILE`.

# %% [markdown]
# ## Training
# The labels are read from the store. The dev split, other passages' questions, chooses the checkpoint.

# %%
own = ["dataset=local", f"dataset.path={questions}"]
small = ["retriever=minilm_l3", "trainer.max_steps=2", "training.dev_queries=2"] if QUICK else ["training.epochs=2"]
train(composed("train", *own, "label_source=llm", "rag=off", "training.batch_size=4", *small, *shared), WORK / "trained")

# %% [markdown]
# ## Is it better?
# On held-out questions of the same making, and, where the texts are those of the packaged collection, on questions that people
# wrote and judged. The first kind flatters: its questions share words with their passages by construction. Have some fifty
# real questions judged before you rely on it (notebook 3).

# %%
rankers = {"BM25": "retriever=bm25", "untrained": "retriever=minilm", "trained": f"model={WORK / 'trained' / 'model'}"}
if QUICK:
    del rankers["untrained"]
scores = []
for name, ranker in rankers.items():
    folder = WORK / name
    evaluate(composed("evaluate", ranker, f"collections=[local:{questions}:test,mini:test]", *shared[:1]), folder)
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["retrieval"]
    scores.append([name, *(values["nDCG@10"] for values in found.values())])
table("nDCG@10", ["", "generated questions", "human questions (mini:test)"], scores)
