"""`python -m uar.hybrid collection=local:DIR:test 'runs=[A.trec,B.trec]' depth=20 annotator=utilsel llm=openai ...`."""

from uar.entry import entry
from uar.evaluation.hybrid import hybrid

if __name__ == "__main__":
    entry("hybrid", hybrid)
