"""Annotate a collection with an LLM: `python annotate.py dataset=local dataset.path=DIR annotator=utilsel llm=openai ...`."""

from uar.annotation.annotate_run import annotate
from uar.launch.entry import entry

if __name__ == "__main__":
    entry("annotate", annotate)
