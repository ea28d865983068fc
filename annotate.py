"""Annotate a collection with an LLM: `python annotate.py dataset=local dataset.path=DIR annotator=utilsel llm=openai ...`."""

from uar.annotate import main

if __name__ == "__main__":
    main()
