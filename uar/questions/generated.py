"""Questions of an annotate run: those of the collection, or written by an LLM."""

import heapq
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from uar.annotation.question_source import Setting
from uar.collections import Collection, Corpus, Query, corpus_file, open_collection, open_corpus, open_training_split, slug
from uar.collections.beir import UNJUDGED, read_queries, splits_of
from uar.collections.languages import words_in
from uar.collections.reference import parse
from uar.errors import UserError
from uar.llm.chains import Chains
from uar.llm.costs.ledger import Prices, keep_rate, ledger, rate_name
from uar.llm.engines.local import LocalEngine
from uar.llm.engines.work import Work
from uar.llm.failing import write_failures
from uar.llm.models import LLM, model_class
from uar.llm.pooled import PooledQuestions
from uar.llm.progress_bar import progress_bar
from uar.llm.record import Outcome
from uar.llm.store.store import Store
from uar.pools import PoolSource
from uar.questions.filters import (
    Dropped,
    Wording,
    Written,
    kept_by_round_trip,
    kept_by_wording,
    kept_once,
    with_answers_of_passages,
    without_copies_of_passages,
)
from uar.questions.text_pairs import DescriptionWriter, HardWriter
from uar.questions.writer import QuestionWriter
from uar.questions.written_folder import PEOPLE, split_by_passage, write_collection
from uar.storage.files import digest, write_json
from uar.storage.ordering import rank_of

GENERATED = "generated"  # before the name of a split that people have judged
COUNTERPARTS = {"misleading": "a misleading description", "passages": "a hard negative that the LLM wrote"}
ANSWERS = ("in_passage", "any", "none")
log = logging.getLogger(__name__)


class OwnQuestions:
    """Those that the collection has: none are written."""

    def writing(self, setting: Setting) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Questions of `passages` passages, drawn by the seed; a larger number takes the same ones and more. See
    conf/questions/generate.yaml for the options."""

    folder: str
    passages: int | None
    per_passage: int
    min_passage_words: int
    min_words: int
    max_words: int
    unwanted: str
    near_duplicate: float
    dev: float
    test: float
    max_failure_rate: float
    round_trip: PoolSource | None
    writer: QuestionWriter | DescriptionWriter | HardWriter
    answers: str = "none"
    own: bool = True

    def __post_init__(self) -> None:
        if self.answers not in ANSWERS:
            raise UserError(f"questions.answers={self.answers!r}; allowed: {', '.join(ANSWERS)}")
        if self.answers != "none" and self.writer.against:
            raise UserError(
                f"questions.answers={self.answers}: {type(self.writer).__name__} writes none; leave it none, or give "
                "questions=generate"
            )
        for name in ("passages", "per_passage", "min_words", "min_passage_words"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"questions.{name}={value}: at least 1 is needed")
        if self.max_words < self.min_words:
            raise UserError(f"questions.max_words={self.max_words} is below questions.min_words={self.min_words}; raise it")
        if not 0 < self.near_duplicate <= 1:
            raise UserError(f"questions.near_duplicate={self.near_duplicate}: a share above 0, at most 1, is needed")
        if min(self.dev, self.test) < 0 or self.dev + self.test >= 1:
            raise UserError(f"questions.dev={self.dev}, questions.test={self.test}: shares whose sum is below 1 are needed")
        try:
            re.compile(self.unwanted)
        except re.error as error:
            raise UserError(f"questions.unwanted={self.unwanted!r} is no regular expression ({error}); mend it") from error

    def writing(self, setting: Setting) -> "Writing":
        """What is to be asked about which passages; the store is looked into, nothing is asked yet."""
        corpus = open_corpus(setting.reference, setting.language)
        drawn = draw(corpus, self.passages, self.min_passage_words, setting.seed)
        if not drawn:
            raise UserError(
                f"{setting.reference}: no passage has questions.min_passage_words={self.min_passage_words} words; lower it"
            )
        own = self._own(setting)
        pseudo = Collection(setting.reference, slug(setting.reference), corpus, {d: Query(d, "") for d in drawn}, {})
        writer = self.writer.asking(self.per_passage, self.answers != "none")
        work = Work(
            writer, PooledQuestions(pseudo, {d: [d] for d in drawn}), [setting.llm], setting.store, self.max_failure_rate
        )
        kept = Chains(writer, Store(setting.store), pseudo.slug, [LLM(work.models[0])], 1.0)
        results = dict(kept.run(work.questions))
        ended = len(results) + len(kept.failed)
        missing = len(drawn) - ended + kept.progress.total.outcomes[Outcome.ERROR]  # which are asked again
        work = work if missing else replace(work, results=results, progress=kept.progress)
        return Writing(self, setting, pseudo, drawn, own, work, missing)

    def _own(self, setting: Setting) -> dict[str, Collection]:
        """By split, the questions that the folder has already; those of a folder without any split are `train`."""
        kind, place, _ = parse(setting.reference)
        path = Path(place, "queries.jsonl")
        if kind != "local" or not self.own or not path.is_file():
            return {}
        splits = splits_of(Path(place)) or [UNJUDGED]
        counted = setting.positive_grade, setting.answers, setting.language
        own = {split: open_training_split(f"local:{place}:{split}", None, *counted) for split in splits}
        without = read_queries(path).keys() - {q for collection in own.values() for q in collection.queries}
        if without:
            log.warning(
                "%d questions of %s are in no split (qrels/, candidates/) and are left out; name them in "
                'candidates/train.jsonl, a line {"query_id": ..., "candidates": []} each, and they are labelled too',
                len(without), path,
            )  # fmt: skip
        return own


@dataclass
class Writing:
    """A lot of questions on its way, about the passages `drawn` of `corpus`, a collection without questions. `own`: by split,
    those that the folder has already. `missing`: calls that the store cannot answer."""

    options: Generate
    setting: Setting
    corpus: Collection
    drawn: Sequence[str]
    own: Mapping[str, Collection]
    work: Work
    missing: int

    def write(self, shard: str | None, prices: Prices, folder: Path) -> None:
        """Ask for what the store does not hold, in this process whatever the engine of the annotation is; replies without a
        question go to `failures.jsonl` in the run folder, and what was spent to `ledger.json`, however the asking ends."""
        if not self.missing:
            return
        if shard:
            raise UserError(
                f"shard={shard}: the questions are not written yet, and every shard would ask for all of them; run the same "
                "command without shard and with limit=1 first"
            )
        try:
            with progress_bar(self.work, prices, "questions") as bar:
                LocalEngine().run(self.work, bar)
        finally:
            write_failures(folder, self.work.progress.failures)
            spent = ledger(self.work.progress, 0, 0, self.work.seconds, self.work.models, prices)
            if model_class(self.work.llms[0]).steady:
                keep_rate(self.work.store, rate_name(self.work.models[0], self.work.asker), spent)
            write_json(folder / "ledger.json", spent)  # that of the whole run takes its place

    def collection(self) -> tuple[Collection, dict[str, Any]]:
        """Filter what was written, write it as a collection, and open its train split; with it what a ledger tells."""
        collection, own = self.corpus, self.own
        taken = {q for one in own.values() for q in one.queries}
        written: list[Written] = []
        for doc_id in self.drawn:
            free = (name for number in count(1) if (name := f"{doc_id}-q{number}") not in taken)
            written += [Written(next(free), one[0], doc_id, *one[1:]) for one in self.work.results.get(doc_id, ())]
        kept, dropped = self._filtered(written)
        counts = Counter(d.why for d in dropped)
        summary = {
            "passages": len(self.drawn),
            "passages_without_reply": len(self.drawn) - len(self.work.results),
            "written": len(written),
            "kept": len(kept),
            "with_answer": sum(bool(q.answer) for q in kept),
            "dropped": dict(counts.most_common()),
        }
        if self.options.writer.against:
            summary["with_counterpart"] = sum(bool(q.against) for q in kept)
        if not kept:
            raise UserError(
                f"{self.setting.reference}: of {len(written)} questions written from {summary['passages']} passages none is "
                f"kept ({_listed(counts)}); raise questions.passages or questions.round_trip.depth, or use a larger LLM"
            )
        shares = {"dev": self.options.dev, "test": self.options.test}
        splits = split_by_passage(kept, shares, self.setting.seed)
        if short := [split for split in shares if shares[split] and not splits[split] and split not in own]:
            log.warning(
                "No question is of the split %s: those that are kept are about %d passages alone; raise questions.passages",
                " or ".join(short), len({q.source for q in kept}),
            )  # fmt: skip
        apart = [split for split, found in splits.items() if split != "train" and split in own and found]
        splits = {f"{GENERATED}_{split}" if split in apart else split: found for split, found in splits.items()}
        folder = Path(self.options.folder) / self._name()
        manifest = {
            "model": self.work.models[0],
            "prompt": "+".join(self.options.writer.prompts()),
            "seed": self.setting.seed,
            "options": self.setting.options,
            **summary,
            "splits": {split: len(of_split) for split, of_split in splits.items()},
        }
        against = self.options.writer.against
        write_collection(
            folder, collection.corpus, corpus_file(self.setting.reference), splits, dropped, own, manifest, against
        )
        log.info(
            "%d questions of %d written from %d passages are kept (%s), %d of them with an answer; they lie in %s",
            len(kept), len(written), summary["passages"], _listed(counts), summary["with_answer"], folder,
        )  # fmt: skip
        if against:
            log.info("%d of them with %s", summary["with_counterpart"], COUNTERPARTS[against])
        for collection in own.values():
            line = "Beside them: %d questions of %s, of which people judged %d"
            people = sum(collection.origin_of(q) == PEOPLE for q in collection.qrels)
            log.info(line, len(collection.queries), collection.reference, people)
        for split in apart:
            log.info("The split %s is that of people alone; the generated questions for it are %s_%s", split, GENERATED, split)
        return open_collection(f"local:{folder}:train"), {**summary, "folder": str(folder)}

    def _filtered(self, written: list[Written]) -> tuple[list[Written], list[Dropped]]:
        options, collection = self.options, self.corpus
        wording = Wording(options.min_words, options.max_words, re.compile(options.unwanted, re.IGNORECASE))
        sources = list(self.work.results)
        texts = {d: collection.corpus.text(row) for d, row in zip(sources, collection.corpus.rows(sources), strict=True)}
        kept, dropped = kept_by_wording(written, wording, texts)
        if options.round_trip is not None:
            kept, lost = kept_by_round_trip(kept, collection, options.round_trip)
            dropped += lost
        if options.writer.against == "passages":
            kept = without_copies_of_passages(kept, texts, options.near_duplicate, collection.corpus.language)
        if options.answers == "in_passage":
            kept = with_answers_of_passages(kept, texts)
        people = [Written(q.id, q.text, "") for one in self.own.values() for q in one.queries.values()]
        kept, repeated = kept_once([*people, *kept], options.near_duplicate, collection.corpus.language)
        mine = {q.id for q in written}
        return [q for q in kept if q.id in mine], dropped + [d for d in repeated if d.question.id in mine]

    def _name(self) -> str:
        """The corpus' name and a hash of all that the questions were made from, so that records of two lots never mix."""
        name = self.corpus.slug.removesuffix(f".{self.setting.reference.rpartition(':')[2]}")
        own = [collection.hash for collection in self.own.values()]
        made_from = (self.corpus.corpus.hash, self.work.models, *self.options.writer.prompts(), *own)
        options = {k: v for k, v in self.setting.options.items() if k not in {"folder", "max_failure_rate"}}
        return f"{name}-{digest(*made_from, self.setting.seed, options)[:8]}"


def draw(corpus: Corpus, number: int | None, min_words: int, seed: int) -> list[str]:
    """Ids of at most `number` passages of `min_words` words or more, in an order drawn by the seed; None: all of them."""
    number = len(corpus) if number is None else number
    size = 2 * number  # some are too short
    while True:
        first = heapq.nsmallest(size, corpus.ids(), key=lambda d: rank_of(seed, "questions", d))
        drawn = [d for d in first if words_in(corpus.text(corpus.row(d)), min_words) >= min_words][:number]
        if len(drawn) == number or size >= len(corpus):
            return drawn
        size *= 4


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {why}" for why, n in counts.items()) or "none dropped"
