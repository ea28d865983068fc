"""The files of an annotate run folder."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from uar.acquisition.uncertainty_acquisition import uncertainties
from uar.annotation.annotators import Judged
from uar.annotation.judged_blocks import JudgedBlock, JudgedColumns, blocks_of
from uar.collections import Corpus
from uar.llm.pictured import Pictured
from uar.llm.record import Messages, Request, Score, as_chat
from uar.storage.files import write_jsonl
from uar.storage.label_files import NAME, write_label_blocks
from uar.storage.qrels import write_qrels_blocks

DOUBTFUL = "doubtful.jsonl"


def write_labels(folder: Path, judged: Judged) -> int:
    """`labels.parquet` and `labels.qrels` (TREC), one row a judged passage. Their number is returned."""
    write_label_blocks(folder / NAME, map(_columns, blocks_of(judged)))
    columns = map(_columns, blocks_of(judged))
    return write_qrels_blocks(folder / "labels.qrels", ((of["query_id"], of["doc_id"], of["label"]) for of in columns))


def _columns(block: JudgedBlock) -> dict[str, pa.Array]:
    query_ids = pa.array(block.query_ids, pa.string()).take(pa.array(block.query))
    return {"query_id": query_ids, "source": pa.repeat("llm", len(query_ids)), **block.columns}


def write_doubtful(folder: Path, judged: Judged, share: float, corpus: Corpus) -> int:
    """`doubtful.jsonl`, as `acquire=listed` reads it: the `share` of the questions of most doubt, the most doubtful first, for
    people. Their number is returned. UserError where the judgements say nothing of doubt."""
    doubts = uncertainties(judged, corpus=corpus)
    order = sorted(doubts, key=lambda q: (-doubts[q], q))[: max(1, round(share * len(doubts)))]
    write_jsonl(folder / DOUBTFUL, ({"query_id": q, "doubt": round(doubts[q], 6)} for q in order))
    return len(order)


def write_rationales(folder: Path, judged: Judged) -> None:
    """`rationales.jsonl`, where the annotator gave reasons: one line a passage that has one."""
    if isinstance(judged, JudgedColumns):
        return
    rows = [(q, j) for q, judgements in judged.items() for j in judgements if j.reason]
    if rows:
        said = ({"query_id": q, "doc_id": j.doc_id, "grade": j.grade, "reason": j.reason} for q, j in rows)
        write_jsonl(folder / "rationales.jsonl", said)


def write_prompts(path: Path, asked: Iterable[tuple[str, str, Request]]) -> None:
    """One line a request: query_id, stage, and the messages, with the names of their images, or the prefix and target."""
    write_jsonl(
        path,
        (
            {"query_id": q, "stage": stage}
            | ({"prefix": r.prefix, "target": r.target} if isinstance(r, Score) else {"messages": _shown(r.messages)})
            for q, stage, r in asked
        ),
    )


def _shown(messages: Messages) -> list[dict[str, str]]:
    turns = zip(as_chat(messages), messages, strict=True)
    return [turn | ({"image": text.image.name} if isinstance(text, Pictured) else {}) for turn, (_, text) in turns]
