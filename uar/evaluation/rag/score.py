"""RAG over a run, one collection after another: passages, answers, their scores, and the files that keep them."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from uar.collections import Collection
from uar.collections.collection_runs import without_own
from uar.evaluation.metrics_file import update_metrics
from uar.evaluation.rag.answer_measures import Answered, Measure
from uar.evaluation.rag.cited_text import without_citations
from uar.evaluation.rag.computed import COMPUTED, how_computed
from uar.evaluation.rag.judges.judge import AnsweredQuestion, Judge
from uar.evaluation.rag.judging import Judging
from uar.evaluation.rag.passage_selection import Selector, selected
from uar.evaluation.rag.query_writing import Missing, Search, Verifier, rewritten, verified
from uar.evaluation.rag.rag_settings import CLOSED_BOOK, ORACLE, RETRIEVED, Settings
from uar.evaluation.rag.reader import Asking, Given, Reader
from uar.evaluation.rag.shown_passages import Cut, Passages, show
from uar.evaluation.score_files import Scores, by_measure
from uar.expansion.query_texts import QueryWriter
from uar.llm.costs.ledger import Prices, ledger
from uar.llm.models import LLM
from uar.llm.record import Outcome
from uar.llm.store.store import Store
from uar.storage.files import read_json, write_json, write_table
from uar.storage.ordering import rank_of
from uar.storage.runs import Run, write_run

log = logging.getLogger(__name__)
LEDGER = "rag_ledger.json"


@dataclass(frozen=True)
class Asks:
    """What is asked of LLMs: of the one that answers, and, by name, what judges the answers."""

    reader: Reader
    rewriter: QueryWriter
    verifier: Verifier | Missing
    selector: Selector | None
    judges: Mapping[str, Judge]


class OpensLLMs(Protocol):
    """Each gives its model when it is first needed, or None where there is none."""

    @property
    def reader(self) -> Callable[[], LLM | None]: ...

    @property
    def judge(self) -> Callable[[], LLM | None]: ...


@dataclass(frozen=True)
class Rag:
    """`measures`: those that compare with gold answers; `judged`: names of the others. `budgets`: see `show`. `prices`: of the
    LLM that answers. `folder` is the run folder."""

    settings: Settings
    measures: Mapping[str, Measure]
    judged: Sequence[str]
    asks: Asks
    budgets: Mapping[str, tuple[Cut, int]]
    generators: OpensLLMs
    prices: Prices
    store: Path
    folder: Path

    def score(
        self, collection: Collection, run: Run, query_ids: Sequence[str], search: Search
    ) -> tuple[Scores, dict[str, float]]:
        """(values a query, value a measure); the measures of other lines than the retrieved passages' are called such as
        `EM (oracle)`. Nothing where there is no generator, or no question has gold answers and nothing is judged without.
        `search`: retrieves with other texts of queries."""
        answered = collection.answered(query_ids)
        measures = self.measures if answered else {}
        if self.measures and not answered:
            lost = ", ".join(self.measures) if self.judged else "RAG scores"
            log.warning("%s has no gold answers: no %s; give some with rag.answers=FILE", collection.reference, lost)
        possible = answered if measures else list(query_ids) if self.judged else []
        llm = self.generators.reader() if possible else None
        if llm is None:
            return [], {}
        chosen = drawn(possible, self.settings.limit, self.settings.seed)
        start = time.perf_counter()
        store = Store(self.store)
        ask = Asking(collection, llm, store, self.settings.max_failure_rate)
        try:
            with self._costs(ask, "answers", len(chosen), self.prices):
                run, texts = self._searched(ask, without_own(collection, run), chosen, search)
                if RETRIEVED in self.settings.lines and not self.settings.select:
                    _tell_of_few(collection, run, chosen, self.settings.top_k)
                lines = {line: self._passages(collection, line, run, chosen) for line in self.settings.lines}
                answers = {line: ask.answers(self.asks.reader, passages) for line, passages in lines.items()}
            calls = ask.progress.total
            summary = "%s: RAG asked %d calls and took %d from the store (%d of %d %squestions, top %d, %.1f s)"
            whose, seconds = "answered " if measures else "", time.perf_counter() - start
            counts = (calls.asked, calls.kept, len(chosen), len(possible), whose, self.settings.top_k, seconds)
            log.info(summary, collection.slug, *counts)
            judging = self._judging(collection, store, lines, answers)
        finally:
            store.close()
        plain = "; citations are taken off the answer" if self.asks.reader.cites else ""
        definitions = {n: f"{m.definition}{plain}" for n, m in measures.items()} | judging.definitions
        metadata = {"measures": definitions, COMPUTED: how_computed(collection, answered, measures)}
        _write_generations(self.folder, collection, lines, answers, texts, metadata)
        scores: Scores = []
        values: dict[str, dict[str, float]] = {}
        values_of_lines: dict[str, Any] = {"questions": len(chosen), **self._failed(ask)}
        for line, passages in lines.items():
            values[line], per_query = self._measure(collection, measures, line, passages, answers[line])
            values[line] |= judging.means(line)
            told = judging.told(collection, line, by_measure(per_query))
            scores += [(q, _name(name, line), v) for q, name, v in [*per_query, *judging.scores(line)]]
            counted = {**values[line], **_counts(answers[line].values()), **told}
            values_of_lines |= counted if line == RETRIEVED else {line: counted}
        judging.write(self.folder, collection)
        seconds = time.perf_counter() - start
        update_metrics(self.folder, rag={collection.slug: values_of_lines}, time={f"rag {collection.slug}": round(seconds, 2)})
        return scores, {_name(m, line): v for line, found in values.items() for m, v in found.items()}

    def _failed(self, ask: Asking) -> dict[str, int]:
        """Replies that were to change the passages and could not be used, by the option that asks for them."""
        by_option = {"rewrite": self.asks.rewriter, "verify": self.asks.verifier, "select": self.asks.selector}
        used = {name: asker for name, asker in by_option.items() if asker and getattr(self.settings, name)}
        return {f"{name}_failed": ask.failed(asker.stages) for name, asker in used.items()}

    def _judging(
        self,
        collection: Collection,
        store: Store,
        lines: Mapping[str, Mapping[str, Passages]],
        answers: Mapping[str, Mapping[str, Given]],
    ) -> Judging:
        """What the judges make of the answers; of nothing where there is no judge."""
        llm = self.generators.judge() if self.asks.judges else None
        judging = Judging(self.asks.judges, self.judged)
        if llm is not None:
            ask = Asking(collection, llm, store, self.settings.max_failure_rate)
            own = self.generators.judge is not self.generators.reader  # whose prices nobody gave
            with self._costs(ask, "judges", len(answers[self.settings.lines[0]]), Prices() if own else self.prices):
                for line, shown in lines.items():
                    judging.judge(ask, line, self._answered(collection, shown, answers[line]))
            total = ask.progress.total
            log.info("%s: judges asked %d calls and took %d from the store", collection.slug, total.asked, total.kept)
        return judging

    @contextmanager
    def _costs(self, ask: Asking, part: str, questions: int, prices: Prices) -> Iterator[None]:
        """What the block asks, in `rag_ledger.json` of the run folder under the collection and the part, however it ends."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = ledger(ask.progress, questions, 0, time.perf_counter() - start, [ask.llm.name], prices)
            path, slug = self.folder / LEDGER, ask.collection.slug
            every = read_json(path) if path.is_file() else {}
            write_json(path, every | {slug: every.get(slug, {}) | {part: spent}})

    def _answered(
        self, collection: Collection, shown: Mapping[str, Passages], answers: Mapping[str, Given]
    ) -> dict[str, AnsweredQuestion | None]:
        """The questions of a line with their answers; None for those whose answer failed."""
        step = -1 if self.settings.order == "reversed" else 1
        found: dict[str, AnsweredQuestion | None] = {}
        for q, passages in shown.items():
            gold = collection.trainable(q)
            positives = {d: collection.corpus.text(collection.corpus.row(d)) for d in gold}
            ranked = tuple(list(passages)[::step])
            query, answer = collection.queries[q], answers[q].text
            question = AnsweredQuestion(
                q, query.text, passages, image=query.image, answer=answer, ranked=ranked, positives=positives
            )
            found[q] = question if answers[q].outcome in (Outcome.OK, Outcome.EMPTY) else None
        return found

    def _searched(self, ask: Asking, run: Run, chosen: list[str], search: Search) -> tuple[Run, dict[str, str]]:
        """The run that answers are made from, and the text that each query was searched with."""
        collection, settings = ask.collection, self.settings
        texts = {q: collection.queries[q].text for q in chosen}
        if not settings.searches_again and not settings.select:
            return run, texts

        def find(queries: Mapping[str, str]) -> Run:
            return without_own(collection, search(queries))

        if settings.rewrite:
            own, texts = texts, rewritten(ask, self.asks.rewriter, texts)
            changed = {q: text for q, text in texts.items() if text != own[q]}
            run = {**run, **find(changed)} if changed else run

        def select(kept: Run, found: Run) -> Run:
            """Without a selector what was found takes the place of what there was."""
            selector = self.asks.selector
            return selected(ask, selector, kept, found, settings.candidates) if selector else found

        def shown(found: Run, asked: list[str]) -> dict[str, Passages]:
            return self._passages(collection, RETRIEVED, found, asked)

        run = select({}, {q: run.get(q, []) for q in chosen})
        if settings.verify:
            run, texts = verified(ask, self.asks.verifier, settings.rounds, shown, find, run, texts, select)
        write_run(self.folder / "runs" / f"{collection.slug}.rag.trec", {q: run[q] for q in chosen if q in run}, "uar-rag")
        return run, texts

    def _passages(self, collection: Collection, line: str, run: Run, chosen: Sequence[str]) -> dict[str, Passages]:
        """The passages of each question as a line shows them; none of a closed book."""
        top_k = self.settings.top_k
        ids = {
            RETRIEVED: lambda q: [d for d, _ in run.get(q, ())[:top_k]],
            ORACLE: lambda q: collection.trainable(q)[:top_k],
            CLOSED_BOOK: lambda q: [],
        }[line]
        found = show(collection, {q: ids(q) for q in chosen}, self.settings.order, self.asks.reader.shown, self.budgets)
        without = sum(not passages for passages in found.values())
        if without and line != CLOSED_BOOK:
            log.warning("%s: %d questions have no passages (%s) and are asked without", collection.slug, without, line)
        return found

    def _measure(
        self,
        collection: Collection,
        measures: Mapping[str, Measure],
        line: str,
        shown: Mapping[str, Passages],
        answers: Mapping[str, Given],
    ) -> tuple[dict[str, float], Scores]:
        """Value a measure of a line, and its values a query. Citations are no part of an answer that is compared with gold."""
        plain = without_citations if self.asks.reader.cites else str
        answered = [
            Answered(plain(answers[q].text), collection.queries[q].answers, tuple(passages.values()))
            for q, passages in shown.items()
        ]
        values: dict[str, float] = {}
        scores: Scores = []
        for name, measure in measures.items():
            if measure.needs_passages and line == CLOSED_BOOK:
                continue
            found = measure.per_question(answered)
            values[name] = measure.overall(answered, found)
            scores += [(q, name, v) for q, v in zip(shown, found or (), strict=bool(found))]
        summary = ", ".join(f"{name} {value:.4f}" for name, value in values.items()) or f"{len(answers)} answers"
        counts = _counts(answers.values())
        log.info(
            "%s: RAG %s: %s (%d empty answers, %d failed)", collection.slug, line, summary, counts["empty"], counts["failed"]
        )
        return values, scores


def _tell_of_few(collection: Collection, run: Run, chosen: Sequence[str], top_k: int) -> None:
    few = sum(0 < len(run.get(q, ())) < top_k for q in chosen)
    if few:
        line = "%s: %d of %d questions are shown fewer than rag.top_k=%d passages, since the ranking has no more"
        log.warning(line, collection.slug, few, len(chosen), top_k)


def drawn(query_ids: Sequence[str], limit: int | None, seed: int) -> list[str]:
    """At most `limit` of the questions, drawn by the seed, in the order given: those of a smaller limit are among them."""
    kept = set(sorted(query_ids, key=lambda q: rank_of(seed, "rag", q))[:limit])
    return [q for q in query_ids if q in kept]


def _name(measure: str, line: str) -> str:
    return measure if line == RETRIEVED else f"{measure} ({line})"


def _counts(answers: Iterable[Given]) -> dict[str, int]:
    """Answers of nothing, and those that failed."""
    outcomes = Counter(given.outcome for given in answers)
    empty = outcomes.pop(Outcome.EMPTY, 0)
    outcomes.pop(Outcome.OK, None)
    return {"empty": empty, "failed": sum(outcomes.values())}


def _write_generations(
    folder: Path,
    collection: Collection,
    lines: Mapping[str, Mapping[str, Passages]],
    answers: Mapping[str, Mapping[str, Given]],
    texts: Mapping[str, str],
    metadata: Mapping[str, Mapping[str, str]],
) -> None:
    """One row a line and question. `outcome`: ok, empty, or how the call failed. `search_query`: what the passages were
    retrieved with. The file's metadata say under `measures` how the answers were scored."""
    rows = [(line, q, passages) for line, shown in lines.items() for q, passages in shown.items()]
    strings = pa.list_(pa.string())
    table = pa.table(
        {
            "query_id": pa.array([q for _, q, _ in rows], pa.string()),
            "question": pa.array([collection.queries[q].text for _, q, _ in rows], pa.string()),
            "gold": pa.array([list(collection.queries[q].answers) for _, q, _ in rows], strings),
            "doc_ids": pa.array([list(passages) for _, _, passages in rows], strings),
            "answer": pa.array([answers[line][q].text for line, q, _ in rows], pa.string()),
            "outcome": pa.array([str(answers[line][q].outcome) for line, q, _ in rows], pa.string()),
            "line": pa.array([line for line, _, _ in rows], pa.string()),
            "search_query": pa.array([texts[q] if line == RETRIEVED else None for line, q, _ in rows], pa.string()),
        }
    )
    summary = table.replace_schema_metadata({name: json.dumps(said) for name, said in metadata.items()})
    write_table(folder / "generations" / f"{collection.slug}.parquet", summary)
