"""Scores a ranker on collections and writes the run folder: runs, per-query scores, generations, metrics."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from uar.collections import Collection
from uar.collections.answer_files import with_answers
from uar.collections.presets import averaged
from uar.errors import UserError
from uar.evaluation.depth import too_deep
from uar.evaluation.judged_by_llm import JudgedByLLM
from uar.evaluation.kept_runs import KeptRuns, Retrieved
from uar.evaluation.measures import deeper_than, means, parsed, per_query, refuse_deeper
from uar.evaluation.metrics_file import forget_evaluation, update_metrics
from uar.evaluation.rag.opening import Generators, open_rag
from uar.evaluation.retrieving import Retrieving, scored_queries
from uar.evaluation.robustness import Robustness
from uar.evaluation.score_files import Scores, write_score_file
from uar.expansion.query_texts import with_texts
from uar.launch.small_table import log_table
from uar.retrievers.ranker import Ranker
from uar.retrievers.session import Session
from uar.storage.files import digest
from uar.storage.manifest import update_manifest
from uar.storage.runs import Run

log = logging.getLogger(__name__)


class Evaluator:
    """`cfg` needs `measures`, `rag`, `search`, `store` and `retrieval_depth`; everything is written to `folder`. `answers`:
    those of the dataset, for where `rag.answers` is null. `llm`: judgements to estimate scores from. `robustness`: other
    wordings of the questions that are searched too. UserError where the measures or the options of RAG are wrong."""

    def __init__(
        self,
        cfg: DictConfig,
        folder: Path,
        answers: Mapping[str, str] | str | None = None,
        llm: JudgedByLLM | None = None,
        robustness: Robustness | None = None,
    ) -> None:
        self._cfg, self._folder, self._answers, self._llm, self._robustness = cfg, folder, answers, llm, robustness
        self._with_answers: dict[tuple[str, ...], list[Collection]] = {}
        self.measures = list(parsed(cfg.measures))
        search: Any = cfg.search and OmegaConf.to_container(cfg.search, resolve=True)
        self.retrieving = Retrieving(search, cfg.retrieval_depth)
        self._runs = KeptRuns(folder)
        self._generators = Generators(cfg.rag) if cfg.rag.llm else None
        self._rag = open_rag(cfg.rag, self._generators, Path(cfg.store), folder) if self._generators else None

    def check(self, collections: Sequence[Collection], ranker: Ranker) -> None:
        """UserError where a collection has no question to score, a measure looks at more results than `ranker` gives, its
        vectors cannot be searched as `search` says, a run file would have to search, or answers are not those of the
        questions; asked before anything is trained or encoded."""
        if self._rag and self._rag.settings.searches_again and not ranker.searches:
            raise UserError(
                "rag.rewrite and rag.verify search with other queries, which a run file has no passages of; give model=DIR or "
                "retriever=NAME alone"
            )
        if self._robustness and not ranker.searches:
            raise UserError("perturb: a run file has no passages for other questions; give model=DIR or retriever=NAME alone")
        depth = self._cfg.retrieval_depth
        for collection in collections:
            scored_queries(collection)
            self.retrieving.check(collection, ranker)
            reach = ranker.reach(collection, depth)
            needed = max(deeper_than(collection, self.measures, reach).values(), default=0)
            remedy = f"give retrieval_depth={needed}" if ranker.reach(collection, needed) >= needed else "give a deeper run"
            refuse_deeper(collection, self.measures, reach, ranker.name, remedy)
        if self._rag:
            self._answered(collections)

    def evaluate(self, collections: Sequence[Collection], ranker: Ranker) -> dict[str, dict[str, float]]:
        """Mean values by slug, retrieval and RAG together, in place of what the folder held. The parts of a set that counts as
        one (CQADupStack) are one row, its mean, which metrics.json has beside theirs."""
        self.check(collections, ranker)
        hashes = {c.slug: c.hash for c in collections}  # before their answers may change
        forget_evaluation(self._folder, hashes)
        if self._rag:
            collections = self._answered(collections)
        update_manifest(
            self._folder,
            collections=hashes,
            wordings={c.slug: c.wording for c in collections},
            passages={c.slug: len(c.corpus) for c in collections},
            ranker=ranker.name,
            measured=self.retrieving.measured(ranker),
        )
        scores: dict[str, Scores] = {}
        searched: dict[str, Mapping[str, float]] = {}
        again = self._rag is not None and self._rag.settings.searches_again
        with ExitStack() as stack:
            session = stack.enter_context(self.retrieving.session(self._folder))
            opened = ranker.opened(session)
            for at, collection in enumerate(collections):
                key = self.retrieving.key(collection, ranker)
                scores[collection.slug], searched[collection.slug] = self._searched(collection, opened, session, key)
                if not again and collection.corpus.hash not in {later.corpus.hash for later in collections[at + 1 :]}:
                    session.release(collection.corpus)
            if not again:
                stack.close()  # the retriever leaves the device before a generator needs it
            rag = self._generated(collections, opened, scores)
        if any(searched.values()):
            update_manifest(self._folder, search=searched)
        rows = averaged({slug: {**means(of), **rag.get(slug, {})} for slug, of in scores.items()})
        whole = {s: {m: v for m, v in rows[s].items() if m in self.measures} for s in rows if s not in scores}
        update_metrics(self._folder, retrieval=whole)
        _tell(ranker.name, rows, {collection.slug: len(collection.corpus) for collection in collections})
        return rows

    def _answered(self, collections: Sequence[Collection]) -> list[Collection]:
        """With the answers of files, which are read once."""
        key = tuple(collection.hash for collection in collections)
        if key not in self._with_answers:
            own = self._cfg.rag.answers
            files, option = (self._answers, "dataset.answers") if own is None else (own, "rag.answers")
            self._with_answers[key] = with_answers(collections, files, option, of_all=own is not None)
        return self._with_answers[key]

    def _searched(
        self, collection: Collection, ranker: Ranker, session: Session, key: str | None
    ) -> tuple[Scores, Mapping[str, float]]:
        """Scores of the questions, and what the search says of itself."""
        query_ids = scored_queries(collection)
        if len(query_ids) < len(collection.queries):
            log.info(
                "%s: %d of %d questions have no positive and are left out",
                collection.reference,
                len(collection.queries) - len(query_ids),
                len(collection.queries),
            )

        searched = list(dict.fromkeys([*query_ids, *(self._llm.questions(collection) if self._llm else ())]))
        if key is not None and len(searched) > len(query_ids):
            key = digest(key, searched)

        def retrieve() -> Retrieved:
            start = time.perf_counter()
            run = self.retrieving.run(collection, ranker, searched)
            seconds = time.perf_counter() - start
            facts, answering = dict(session.take_facts()), max(seconds - session.take_prepared(), 1e-3)
            if ranker.is_timed:
                facts["questions_per_second"] = round(len(searched) / answering, 1)
            return Retrieved(run, round(seconds, 2), facts)

        retrieved, kept = self._runs.retrieved(collection.slug, key, retrieve)
        run, seconds = retrieved.run, retrieved.seconds
        _warn_of_missing(collection, run, query_ids)
        longest = max((len(run.get(q, ())) for q in query_ids), default=0)
        deeper = deeper_than(collection, self.measures, longest)
        if deeper and longest:
            line = "%s: no question has more than %d results, fewer than %s look at"
            log.warning(line, collection.reference, longest, ", ".join(deeper))
        scores = per_query(collection, run, self.measures, query_ids)
        spent = "a run that stood in this folder" if kept else f"{seconds:.1f} s"
        log.info("%s: %d questions, %s", collection.slug, len(query_ids), spent)
        write_score_file(self._score_file(collection), scores)
        update_metrics(
            self._folder, retrieval={collection.slug: means(scores)}, time={f"retrieval {collection.slug}": seconds}
        )
        if self._llm:
            self._llm.estimate(self._folder, collection, run, self.measures)
        if self._robustness:

            def search(asked: Collection, query_ids: Sequence[str]) -> Run:
                return self.retrieving.run(asked, ranker, query_ids)

            self._robustness.report(self._folder, collection, self.measures, scores, search)
        return scores, retrieved.facts

    def _generated(
        self, collections: Sequence[Collection], ranker: Ranker, scores: Mapping[str, Scores]
    ) -> dict[str, dict[str, float]]:
        """Mean values of RAG by slug, over the runs that stand in the folder; their scores stand beside those of retrieval."""
        if self._rag is None or self._generators is None:
            return {}
        found: dict[str, dict[str, float]] = {}
        roomy = ranker.with_room(None)  # for what an LLM writes, which may be a passage
        try:
            for collection in collections:

                def search(texts: Mapping[str, str], collection: Collection = collection) -> Run:
                    return roomy.rank(with_texts(collection, texts), list(texts), self._cfg.retrieval_depth)

                own = scores[collection.slug]
                run = self._runs.standing(collection.slug)
                of_rag, found[collection.slug] = self._rag.score(collection, run, scored_queries(collection), search)
                write_score_file(self._score_file(collection), own + of_rag)
        finally:
            self._generators.close()
        return found

    def _score_file(self, collection: Collection) -> Path:
        return self._folder / "scores" / f"{collection.slug}.parquet"


def _tell(name: str, rows: Mapping[str, Mapping[str, float]], passages: Mapping[str, int]) -> None:
    """A table of what says something; metrics.json has the rest too."""
    if not rows:
        log.info("%s is not scored: there is no collection to score it on, as of dataset.test=[]", name)
        return
    deep = {(s, m): said for s in passages for m in rows.get(s, ()) if (said := too_deep(s, m, passages[s]))}
    columns = list(dict.fromkeys(m for s, of_row in rows.items() for m in of_row if (s, m) not in deep))
    shown = [[s, *(None if (s, m) in deep else of.get(m) for m in columns)] for s, of in rows.items()]
    log_table(log, name, ["collection", *columns], shown)
    for said in deep.values():
        log.info("%s (metrics.json has it)", said)


def _warn_of_missing(collection: Collection, run: Run, query_ids: Sequence[str]) -> None:
    without = sum(not run.get(q) for q in query_ids)
    if without:
        log.warning("%s: %d of %d queries have no result and score 0", collection.reference, without, len(query_ids))
    if without < len(query_ids) and not any(collection.corpus.row(d) >= 0 for q in query_ids for d, _ in run.get(q, ())):
        log.warning("%s: no passage of the run is in the corpus; is it a run of this collection?", collection.reference)
