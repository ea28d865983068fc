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
# # 2. How good are the labels?
#
# Before a retriever learns from an LLM's labels, see how they agree with people's: how many are right, how many are missed,
# and whether the LLM knows where it is wrong. This notebook reads the shipped annotations of the packaged collection, so that
# nothing is asked. For your own run, name its collection, annotator, model and store below.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table

from uar.acquisition import AcquisitionContext, UncertaintyAcquisition
from uar.annotation.annotation import Asked
from uar.annotation.annotators import Judged
from uar.annotation.quality.agreement import agreement
from uar.annotation.quality.comparison import compare
from uar.annotation.quality.disagreements import worst_disagreements
from uar.annotation.selection import Annotations
from uar.collections import open_collection
from uar.collections.reference import MINI
from uar.launch.entry import composed
from uar.llm.models import identity_of

collection = open_collection("mini:train")
annotations = Annotations(Path("annotations"), also=(MINI / "annotations",))


def judgements(*options: str) -> Judged:
    """Judgements by the kept replies: another threshold costs no call."""
    cfg = composed("annotate", "llm=smollm2", *options)
    asked = Asked(instantiate(cfg.annotator, _convert_="all"), [identity_of(cfg.llm)], collection)
    return annotations.choose(asked, "latest").concluded().judgements


def table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    shown = Table(*columns, title=title)
    for row in rows:
        shown.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=120).print(shown)


# %% [markdown]
# ## One question
# The annotator `likelihood` asks how likely a passage makes the question. Its scores are nat a token; the best is positive.

# %%
judged = judgements("annotator=likelihood")
query_id = next(iter(judged))
texts = {j.doc_id: collection.corpus.parts(j.doc_id)[1] for j in judged[query_id]}
people = collection.qrels[query_id]
rows = [
    [j.rank, j.score, "useful" if j.label else "", people.get(j.doc_id, 0), texts[j.doc_id][:70]] for j in judged[query_id]
]
table(collection.queries[query_id].text, ["rank", "nat a token", "LLM", "people's grade", "passage"], rows)

# %% [markdown]
# ## All questions
# Precision and recall against the human positives, and Cohen's kappa, each with a 95 % interval (bootstrap over questions).
# People give grade 2 to what answers and grade 1 to what is only on the topic.

# %%
quality = agreement(collection, judged)
assert quality is not None
names = ["precision", "recall", "average_positives", "human_positive_ranked_first", "kappa"]
rows = [[name, quality[name], "{:.3f} to {:.3f}".format(*quality["intervals"][name])] for name in names]
table(f"{quality['queries']} questions", ["", "value", "95 % interval"], rows)

# %% [markdown]
# ## More positives, or surer ones?
# The share of the pool that is positive trades precision for recall. A loss that bears noisy positives (`summed_marginal`) can
# use more of them than one that pulls each (`joint`).

# %%
curve = []
for percent in (10, 25, 40, 60, 80, 100):
    found = agreement(collection, judgements("annotator=likelihood", f"annotator.threshold={percent}"), resamples=10)
    assert found is not None
    curve.append([percent, found["precision"], found["recall"], found["average_positives"]])
table("annotator.threshold", ["percent", "precision", "recall", "positives a question"], curve)

figure, axes = plt.subplots(figsize=(5, 3.5))
axes.plot([row[2] for row in curve], [row[1] for row in curve], marker="o")
for percent, precision, recall, _ in curve:
    axes.annotate(f"{percent} %", (recall, precision), textcoords="offset points", xytext=(6, 4))
axes.set(xlabel="Recall of human positives", ylabel="Precision", ylim=(0, 1.05))
plt.show()

# %% [markdown]
# ## Another annotator
# Utility may also be how likely a passage makes the *gold answer*. Do the two agree with each other more than with people?

# %%
by_answer = judgements("annotator=answer_likelihood")
against_people = agreement(collection, by_answer)
against_question = compare(by_answer, judged)
assert against_people is not None and against_question is not None
judges = {"people": against_people, "likelihood": against_question}
rows = [[name, judge["precision"], judge["recall"]] for name, judge in judges.items()]
table("answer_likelihood against", ["", "precision", "recall"], rows)

# %% [markdown]
# ## Where they differ most
# Read these. Often the LLM is wrong; sometimes the people are, or the question has two answers.

# %%
rows = [[d.human_grade, d.query, d.passage[:60]] for d in worst_disagreements(collection, judged, limit=6)]
table("Worst disagreements", ["people's grade", "question", "passage"], rows)

# %% [markdown]
# ## Does it know where it is wrong?
# If the LLM's least certain questions hold most of its mistakes, a human budget is best spent there
# (`acquire=uncertainty`).

# %%
wrong = {q for q, found in judged.items() if not any(j.label and collection.positive(q, j.doc_id) for j in found)}
rows = []
unsure_first = UncertaintyAcquisition().order(AcquisitionContext(list(judged), 0, judgements=lambda: judged))
for share in (0.1, 0.2, 0.5):
    unsure = unsure_first[: round(share * len(unsure_first))]
    rows.append([f"{share:.0%}", len(unsure), len(wrong.intersection(unsure)) / max(1, len(wrong))])
table(f"{len(wrong)} questions whose positive was missed", ["least certain", "questions", "share of the mistakes"], rows)
