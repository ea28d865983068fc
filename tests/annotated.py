"""Six passages annotated by scripted models."""

from collections.abc import Sequence
from pathlib import Path

from scripted import Scripted, run

from uar.annotation.annotation import Annotation, Asked
from uar.annotation.annotators import Annotator, Likelihood, RelSel
from uar.annotation.selection import Annotations
from uar.collections import Collection
from uar.llm.pooled import PooledQuestions
from uar.llm.record import Reply, Request

LIKELIHOOD = Likelihood(template="likelihood_question", threshold=50.0)
RELSEL = RelSel(template="relsel")
POOL = ["d3", "d1", "d2", "d5"]
MODELS = ["scripted@1"]


def by_length(request: Request) -> Reply:
    """A short passage makes the question likely."""
    return Reply.of_score(-float(len(request.prefix)), 1)


def begun(
    store: Path, collection: Collection, annotator: Annotator, pool: Sequence[str] = POOL, **settings: int
) -> Annotation:
    asked = Asked(annotator, MODELS, collection)
    return Annotations(store).begin(asked, {"depth": len(pool)}, dict.fromkeys(collection.queries, pool), {})


def annotated(store: Path, collection: Collection, annotator: Annotator, pool: Sequence[str] = POOL) -> Annotation:
    """As a run does it that ends well."""
    annotation = begun(store, collection, annotator, pool)
    questions = PooledQuestions(collection, dict.fromkeys(collection.queries, pool))
    judged, chains = run(store, annotator, Scripted(by_length), list(questions))
    annotation.keep(judged, chains.failed)
    return annotation


def chosen(store: Path, collection: Collection, annotator: Annotator, which: str = "latest") -> Annotation:
    annotation = Annotations(store).choose(Asked(annotator, MODELS, collection), which)
    assert annotation is not None
    return annotation


def labels(annotation: Annotation) -> dict[str, dict[str, int]]:
    return {q: {j.doc_id: j.label for j in js} for q, js in annotation.concluded().judgements.items()}
