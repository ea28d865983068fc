"""Labels by an LLM: what an annotator makes of the records in the store."""

import logging
from dataclasses import dataclass

from uar.annotation.annotators import Judgement
from uar.errors import UserError
from uar.labels.corrupt import corrupted
from uar.labels.examples import Example, Pair, example_of
from uar.labels.source import LabelContext, LabelSource, Stage

log = logging.getLogger(__name__)
HUMAN_POSITIVE = ("random", "exclude", "include")


@dataclass(frozen=True)
class LLMLabels(LabelSource):
    """The annotator's positives of every annotated query; negatives are the judged passages that it did not choose. The
    annotator's scores, or else its grades where it has more than two, are the utilities.

    `human_positive`: the human positives among the judged passages are `random`, not treated apart; `exclude`, left out;
    `include`, positive whatever the LLM said (arXiv 2504.05220, table 7). `corrupt`: the share of the queries whose labels are
    moved to wrong passages, see `corrupted`.
    """

    epochs: int = 1
    positives: str = "all"
    human_positive: str = "random"
    corrupt: float = 0.0

    def stages(self, context: LabelContext) -> list[Stage]:
        return [Stage("llm", llm_examples(context, self.human_positive, self.corrupt), self.epochs, self.positives)]


def llm_examples(context: LabelContext, human_positive: str = "random", corrupt: float = 0.0) -> list[Example]:
    """Examples of the annotated queries that got a positive; UserError where there is none."""
    if human_positive not in HUMAN_POSITIVE:
        raise UserError(f"label_source.human_positive={human_positive!r}; allowed: {', '.join(HUMAN_POSITIVE)}")
    judged = context.judgements()
    chosen = [q for q in context.query_ids if q in judged]
    judged = corrupted({q: judged[q] for q in chosen}, corrupt, context.seed)
    graded = len({j.grade for q in chosen for j in judged[q]}) > 2
    examples = []
    for query_id in chosen:
        origin = context.collection.origin_of(query_id)
        people = [] if human_positive == "random" else context.collection.trainable(query_id)
        kept = [j for j in judged[query_id] if human_positive == "include" or j.doc_id not in people]
        pairs = [_pair(j, origin if j.doc_id in people else None, graded) for j in kept]
        if human_positive == "include":
            shown = {p.doc_id for p in pairs}
            pairs += [Pair(d, 1, origin, None) for d in people if d not in shown]
        ignored = people if human_positive == "exclude" else ()
        if any(p.label for p in pairs):
            examples.append(example_of(query_id, pairs, "llm", ignored))
    if not examples:
        raise UserError(
            f"{context.collection.reference}: the annotator found no positive in any of {len(chosen)} annotated queries; "
            "loosen annotator.threshold or use another annotator"
        )
    log.info(
        "LLM labels: %d of %d queries are annotated, %d of them have a positive (%.2f positives a query)",
        len(chosen), len(context.query_ids), len(examples), sum(len(e.positives) for e in examples) / len(examples),
    )  # fmt: skip
    trainable = context.collection.trainable
    with_people = sum(not {j.doc_id for j in judged[q]}.isdisjoint(trainable(q)) for q in chosen)
    if with_people and human_positive != "exclude":
        line = "LLM labels: %d of %d pools hold a passage that people judged positive, as candidates.include_positive has it"
        log.info(line, with_people, len(chosen))
    return examples


def _pair(judgement: Judgement, origin: str | None, graded: bool) -> Pair:
    """`origin`: of the positive judgement that the passage has beside the LLM's."""
    said = f"llm:{judgement.by}" if judgement.by else "llm"
    source = said if origin is None else f"{origin}+{said}" if judgement.label else origin
    return Pair(judgement.doc_id, int(judgement.label or origin is not None), source, utility_of(judgement, graded))


def utility_of(judgement: Judgement, graded: bool) -> float | None:
    """The score, else the grade where grades say more than yes and no."""
    return judgement.score if judgement.score is not None else float(judgement.grade) if graded else None
