"""`python -m uar.hybrid collection=local:DIR:test 'runs=[A.trec,B.trec]' depth=20 annotator=utilsel llm=openai ...`."""

from uar.evaluation.hybrid_test import hybrid
from uar.launch.entry import entry

if __name__ == "__main__":
    entry("hybrid", hybrid)
