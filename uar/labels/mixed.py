"""LLM labels for all queries, human labels for a share of them."""

from dataclasses import dataclass

from uar.errors import UserError
from uar.labels.human import human_examples
from uar.labels.llm import llm_examples
from uar.labels.source import Example, LabelContext, LabelSource, Stage


@dataclass(frozen=True)
class MixedLabels(LabelSource):
    """`strategy=curriculum` (arXiv 2504.05220): a stage on the LLM's labels, then one on the human labels of a random
    `human_frac` of the queries. `strategy=union`: one stage on both kinds of positives together.

    `human_frac` is a share of the split's queries with a human positive, whether annotated or not; 0 leaves the LLM alone.
    """

    human_frac: float = 0.2
    strategy: str = "curriculum"
    epochs: int = 1
    human_epochs: int = 1
    positives: str = "all"
    human_positives: str = "one"

    def stages(self, context: LabelContext) -> list[Stage]:
        if self.strategy not in {"curriculum", "union"}:
            raise UserError(f"label_source.strategy={self.strategy!r}; allowed: curriculum, union")
        human = human_examples(context, self.human_frac)
        llm = llm_examples(context)
        if not human:
            return [Stage("llm", llm, self.epochs, self.positives)]
        if self.strategy == "union":
            return [Stage("union", _union(llm, human), self.epochs, self.positives)]
        return [
            Stage("llm", llm, self.epochs, self.positives),
            Stage("human", human, self.human_epochs, self.human_positives),
        ]


def _union(llm: list[Example], human: list[Example]) -> list[Example]:
    joined = {e.query_id: e for e in llm}
    for example in human:
        other = joined.get(example.query_id)
        if other is None:
            joined[example.query_id] = example
            continue
        positives = tuple(dict.fromkeys(example.positives + other.positives))
        seen = dict.fromkeys(other.negatives + example.negatives)
        negatives = tuple(d for d in seen if d not in positives)
        joined[example.query_id] = Example(example.query_id, positives, negatives, "human+llm")
    return list(joined.values())
