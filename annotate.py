"""Annotate a collection with an LLM: `python annotate.py dataset=local dataset.path=DIR annotator=utilsel llm=openai ...`."""

from uar.annotation.run import annotate
from uar.entry import entry

if __name__ == "__main__":
    entry("annotate", annotate)
