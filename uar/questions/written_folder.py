"""Written questions as a collection in BEIR format, with the passages of the corpus and a manifest."""

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from uar.collections import Collection, Corpus, Query
from uar.errors import UserError
from uar.questions.filters import Dropped, Written
from uar.questions.misleading_file import write_misleading
from uar.storage.files import file_hash, write_json, write_jsonl, write_text
from uar.storage.manifest import save_manifest
from uar.storage.ordering import rank_of

HEADER = "query-id\tcorpus-id\tscore\n"
ORIGIN, PEOPLE = "generated", "human"


def write_collection(
    folder: Path,
    corpus: Corpus,
    corpus_file: Path | None,
    splits: Mapping[str, Sequence[Written]],
    dropped: Sequence[Dropped],
    own: Mapping[str, Collection],
    manifest: Mapping[str, Any],
    against: str = "",
) -> None:
    """`corpus.jsonl` (a link where it is a file already), `queries.jsonl`, `qrels/<split>.tsv` with each question's source as
    its positive, `dropped.jsonl`, `collection.json` that calls the judgements generated, and `manifest.json`. `own`: splits of
    questions that are there already; they keep their judgements, how these count, candidates and split, and who judged.

    `against`: what the counterparts of questions are: `misleading` texts, which go to `misleading.jsonl`, or `passages`, hard
    negatives that join the corpus and, with the source, the candidates of their question."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [question for of_split in splits.values() for question in of_split]
    negatives = {f"{q.id}-hard": q for q in written if q.against and against == "passages"}
    if negatives:
        _with_negatives(folder / "corpus.jsonl", corpus, {doc_id: q.against for doc_id, q in negatives.items()})
    else:
        _passages(folder / "corpus.jsonl", corpus, corpus_file)
    if against == "misleading":
        write_misleading(folder, ((q.source, q.against) for q in written if q.against))
    theirs = {q.id: (q, collection.origin_of(q.id)) for collection in own.values() for q in collection.queries.values()}
    rows = [{**_row(q.id, q.text, q.answers, origin), **_image(folder, q)} for q, origin in theirs.values()]
    for question in written:
        row = _row(question.id, question.text, [question.answer] if question.answer else [], ORIGIN)
        rows.append({**row, "source": question.source})
    write_jsonl(folder / "queries.jsonl", rows)
    positive = max((collection.positive_grade for collection in own.values()), default=1)
    for split in dict.fromkeys([*splits, *own]):
        lines = [f"{q.id}\t{q.source}\t{positive}\n" for q in splits.get(split, ())]
        qrels = own[split].qrels if split in own else {}
        lines += [f"{query_id}\t{doc_id}\t{grade}\n" for query_id, given in qrels.items() for doc_id, grade in given.items()]
        if lines:  # else the folder lacks the split
            write_text(folder / "qrels" / f"{split}.tsv", HEADER + "".join(lines))
        pools: dict[str, list[str]] = {}
        if split in own:
            pools = {q: own[split].candidates.get(q, []) for q in own[split].queries}
            pools = {q: pool for q, pool in pools.items() if pool or q not in qrels}
        pools |= {q.id: [q.source, d] for d, q in negatives.items() if q in splits.get(split, ())}
        if pools:
            rows = [{"query_id": q, "candidates": pool} for q, pool in pools.items()]
            write_jsonl(folder / "candidates" / f"{split}.jsonl", rows)
    write_jsonl(
        folder / "dropped.jsonl", ({"text": d.question.text, "source": d.question.source, "why": d.why} for d in dropped)
    )
    language = {} if corpus.language == "en" else {"language": corpus.language}
    grades = {"positive_grade": positive} if positive != 1 else {}
    counted = {} if all(collection.graded for collection in own.values()) else {"graded": False}
    counted |= {"drop_own": True} if any(collection.drop_own for collection in own.values()) else {}
    write_json(folder / "collection.json", {"origin": ORIGIN, **grades, **counted, **language})
    save_manifest(folder, corpus=corpus.hash, **manifest)


def _row(query_id: str, text: str, answers: Sequence[str], origin: str) -> dict[str, Any]:
    return {"_id": query_id, "text": text, **({"answers": list(answers)} if answers else {}), "origin": origin}


def _image(folder: Path, query: Query) -> dict[str, str]:
    """What its row says of a question's image, whose file goes along."""
    image = query.image
    if image is not None and image.is_file:
        _link(folder / image.name, image.folder / image.name)
    return {} if image is None else {"image": image.name}


def split_by_passage(questions: Sequence[Written], shares: Mapping[str, float], seed: int) -> dict[str, list[Written]]:
    """Questions by split, `train` first: of each further split at least one passage where there are enough, so that no
    passage is asked about in two."""
    order = sorted({q.source for q in questions}, key=lambda d: rank_of(seed, "split", d))
    of: dict[str, str] = {}
    taken = 0
    wanted = [split for split, share in shares.items() if share > 0]
    for place, split in enumerate(wanted if len(order) > len(wanted) else (), start=1):
        others = 1 + len(wanted) - place  # train and the splits that follow have a passage each
        number = min(max(round(shares[split] * len(order)), 1), len(order) - taken - others)
        of |= dict.fromkeys(order[taken : taken + number], split)
        taken += number
    return {split: [q for q in questions if of.get(q.source, "train") == split] for split in ("train", *shares)}


def _with_negatives(path: Path, corpus: Corpus, negatives: Mapping[str, str]) -> None:
    """The passages of the corpus, and then those that the LLM wrote. UserError where an id is taken."""
    taken = next((doc_id for doc_id in negatives if corpus.row(doc_id) >= 0), None)
    if taken is not None:
        raise UserError(f"the corpus has a passage {taken!r}, the id of a hard negative that was written; rename it")
    rows = chain(corpus.passages(), ((doc_id, "", text) for doc_id, text in negatives.items()))
    path.unlink(missing_ok=True)  # it may be a link to the corpus
    write_jsonl(path, ({"_id": d, "title": title, "text": text} for d, title, text in rows))


def _passages(path: Path, corpus: Corpus, file: Path | None) -> None:
    if file is None:
        if not path.is_file():
            write_jsonl(path, ({"_id": d, "title": title, "text": text} for d, title, text in corpus.passages()))
        return
    _link(path, file)


def _link(path: Path, file: Path) -> None:
    """`path` as a link to `file`, or a copy of it."""
    if path.is_file() and file_hash(path) == file_hash(file):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".corpus.") as beside:
        link = Path(beside) / path.name
        with contextlib.suppress(OSError):  # a file system without links
            link.symlink_to(file.resolve())
        if not link.is_symlink():
            link.write_bytes(file.read_bytes())
        os.replace(link, path)
