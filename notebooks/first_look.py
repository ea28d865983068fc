# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # A first look at utility labels
# Which passages does the LLM of the shipped annotations call useful, and what do people say? Open this file with jupytext,
# or run it as it is: it needs no model and no network.

# %%
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from uar.annotation.engines import identity_of
from uar.annotation.quality.agreement import agreement
from uar.annotation.replay import kept_judgements
from uar.annotation.store import Store
from uar.collections import open_collection
from uar.collections.reference import MINI
from uar.entry import CONF, register_resolvers

register_resolvers()
with initialize_config_dir(str(CONF), version_base="1.3"):
    cfg = compose("annotate", ["dataset=mini", "annotator=likelihood", "llm=smollm2"])
collection = open_collection("mini:train")
annotator = instantiate(cfg.annotator, _convert_="all")

# %% [markdown]
# The judgements come out of the stored records: another threshold costs no call.

# %%
judged = kept_judgements(collection, annotator, Store(MINI / "annotations"), [identity_of(cfg.llm)])
quality = agreement(collection, judged)

# %%
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

query_id = next(iter(judged))
table = Table(title=collection.queries[query_id].text)
for heading in ("rank", "nat a token", "LLM", "people", "passage"):
    table.add_column(heading)
for j in judged[query_id]:
    human = collection.qrels[query_id].get(j.doc_id, 0)
    table.add_row(str(j.rank), f"{j.score:.2f}", "useful" if j.label else "", str(human), collection.corpus.parts(j.doc_id)[1])
Console().print(table)
Console().print(quality)
