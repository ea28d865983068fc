"""Labels by an LLM: what an annotator makes of the records in the store."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from uar.collections import Collection
from uar.errors import UserError
from uar.labels.corrupt import corrupted
from uar.labels.doubted import with_doubted_weight
from uar.labels.example_columns import Columns, Examples
from uar.labels.judged_columns import JudgedBlock, are_graded, judged_blocks, positives_by_people
from uar.labels.source import LabelContext, LabelSource, Stage
from uar.machine.heap import release_heap
from uar.storage.copies import of_owner

log = logging.getLogger(__name__)
HUMAN_POSITIVE = ("random", "exclude", "include")


@dataclass(frozen=True)
class LLMLabels(LabelSource):
    """The annotator's positives of every annotated query; negatives are the judged passages that it did not choose. The
    annotator's scores, or else its grades where it has more than two, are the utilities.

    `human_positive`: the human positives among the judged passages, and copies of them, are `random`, not treated apart;
    `exclude`, left out; `include`, positive whatever the LLM said (arXiv 2504.05220, table 7). `corrupt`: the share of the
    queries whose labels are moved to wrong passages, see `corrupted`. `doubted_by`: a model that was trained before; where it
    disagrees, a query weighs `doubted_weight`, see `with_doubted_weight`.
    """

    epochs: int = 1
    positives: str = "all"
    human_positive: str = "random"
    corrupt: float = 0.0
    doubted_by: str | None = None
    doubted_weight: float = 0.5

    def stages(self, context: LabelContext) -> list[Stage]:
        examples = llm_examples(context, self.human_positive, self.corrupt)
        if self.doubted_by is not None:
            examples = with_doubted_weight(examples, context, self.doubted_by, self.doubted_weight)
        return [Stage("llm", examples, self.epochs, self.positives)]


def llm_examples(context: LabelContext, human_positive: str = "random", corrupt: float = 0.0) -> Examples:
    """Examples of the annotated queries that got a positive; UserError where there is none."""
    if human_positive not in HUMAN_POSITIVE:
        raise UserError(f"label_source.human_positive={human_positive!r}; allowed: {', '.join(HUMAN_POSITIVE)}")
    collection, judged, names, who = context.collection, context.judgements(), dict[str, int](), dict[str, int]()
    chosen = [q for q in context.query_ids if q in judged]
    if corrupt != 0 or isinstance(corrupt, bool):
        judged = corrupted({q: judged[q] for q in chosen}, corrupt, context.seed)
    graded = are_graded(judged, chosen)
    query_ids: list[str] = []
    parts, with_people = [], 0
    for block in judged_blocks(judged, chosen, collection.corpus, who):
        block = _by_name(block, list(who), names)
        people = positives_by_people(collection, block.query_ids)
        own, columns = _examples(block, people, human_positive, collection, names, graded)
        query_ids += own
        parts.append(columns)
        with_people += len(np.unique(block.query[_by_both(block, people)]))
    examples = Examples(query_ids, parts, list(names), collection.corpus)
    release_heap()
    if not examples:
        raise UserError(
            f"{collection.reference}: the annotator found no positive in any of {len(chosen)} annotated queries; "
            "loosen annotator.threshold or use another annotator"
        )
    log.info(
        "LLM labels: %d of %d queries are annotated, %d of them have a positive (%.2f positives a query)",
        len(chosen), len(context.query_ids), len(examples), int(examples.columns.positives.sum()) / len(examples),
    )  # fmt: skip
    if with_people and human_positive != "exclude":
        line = "LLM labels: %d of %d pools hold a passage that people judged positive, as candidates.include_positive has it"
        log.info(line, with_people, len(chosen))
    return examples


People = tuple[np.ndarray, np.ndarray]  # ends a query, corpus rows


def _by_name(block: JudgedBlock, who: Sequence[str], names: dict[str, int]) -> JudgedBlock:
    """With places in `names` of what the source of a label is called."""
    called = np.array([names.setdefault(f"llm:{name}" if name else "llm", len(names)) for name in who])
    return replace(block, by=called[block.by])


def _by_both(block: JudgedBlock, people: People, texts: np.ndarray | None = None) -> np.ndarray:
    """(pairs,) whether people judged the passage positive too, or one of its text by `texts`, (corpus,) their hashes."""
    ends, rows = people
    owner = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    own, known = (of if texts is None else texts[of] for of in (block.rows, rows))
    return np.isin(of_owner(own, block.query), of_owner(known, owner))


def _examples(
    block: JudgedBlock, people: People, human_positive: str, collection: Collection, names: dict[str, int], graded: bool
) -> tuple[list[str], Columns]:
    """Of the queries of the block that have a positive."""
    ends, rows_of_people = people
    utility = np.where(np.isnan(block.score) & graded, block.grade, block.score)
    query, rows, label, source = block.query, block.rows, block.label > 0, block.by
    if human_positive != "random":
        both = _by_both(block, people, collection.corpus.text_hashes)
        if human_positive == "exclude":
            query, rows, label, source, utility = (x[~both] for x in (query, rows, label, source, utility))
        else:
            source = _named_by_both(block, both, collection, names)
            label = label | both
            owner = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
            unshown = ~np.isin(owner * len(collection.corpus) + rows_of_people, query * len(collection.corpus) + rows)
            origin = [names.setdefault(collection.origin_of(q), len(names)) for q in block.query_ids]
            more = owner[unshown]
            query, rows = np.concatenate([query, more]), np.concatenate([rows, rows_of_people[unshown]])
            label, source = np.concatenate([label, more >= 0]), np.concatenate([source, np.array(origin, np.int64)[more]])
            utility = np.concatenate([utility, np.full(len(more), np.nan)])
    positives = np.bincount(query[label], minlength=len(block.query_ids))
    good = positives > 0
    order = np.argsort(query * 2 + ~label, kind="stable")
    order = order[good[query[order]]]
    ignored, ignored_rows = np.zeros(len(block.query_ids), np.int64), np.zeros(0, np.int64)
    if human_positive == "exclude":
        ignored, ignored_rows = np.diff(ends), rows_of_people[np.repeat(good, np.diff(ends))]
    columns = Columns(
        sizes=np.bincount(query, minlength=len(good))[good],
        positives=positives[good],
        ignored_sizes=ignored[good],
        own=np.full(int(good.sum()), names.setdefault("llm", len(names))),
        weight=np.ones(int(good.sum())),
        rows=rows[order],
        source=source[order],
        utility=utility[order],
        whole=np.zeros(len(order), np.bool_),
        ignored=ignored_rows,
    )
    return [q for q, has_positive in zip(block.query_ids, good.tolist(), strict=True) if has_positive], columns


def _named_by_both(block: JudgedBlock, both: np.ndarray, collection: Collection, names: dict[str, int]) -> np.ndarray:
    """(pairs,) sources where people's positives are positive whatever the LLM said: theirs, or of both."""
    source, said = block.by.copy(), list(names)
    for at in np.flatnonzero(both).tolist():
        origin = collection.origin_of(block.query_ids[int(block.query[at])])
        name = f"{origin}+{said[int(block.by[at])]}" if block.label[at] else origin
        source[at] = names.setdefault(name, len(names))
    return source
