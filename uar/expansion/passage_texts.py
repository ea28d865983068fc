"""What is asked of the LLM for a passage, and the corpus that passages make with what it wrote."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from uar.collections import Corpus, open_corpus
from uar.collections.documents import build_corpus
from uar.expansion.query_texts import written_text
from uar.llm.call import Call, Chain, Item, Question
from uar.llm.prompted import OnePrompt
from uar.llm.record import Outcome, Reply
from uar.llm.replies import check_text
from uar.storage.files import cache_dir, digest, is_whole, writable

FORMS = ("keywords", "abstract", "questions")  # prompts of the package, passage_NAME


@dataclass(frozen=True)
class PassageWriter(OnePrompt):
    """One call a passage; the chain's value is the reply as one line. A reply without a text fails; one that was cut at
    `tokens` counts as far as it goes. `before`: what was written stands before the passage, where retrievers that cut passages
    still read it, and not after it."""

    variables = frozenset({"passage"})
    stage: ClassVar[str] = "expand_passage"

    tokens: int = 96
    before: bool = False

    @property
    def stages(self) -> tuple[str, ...]:
        return (self.stage,)

    def chain(self, question: Question) -> Chain:
        prompt = self.prompt
        ((doc_id, text),) = question.passages.items()
        request = self.generate(prompt.render(passage=self.shown(text)), self.tokens)
        (reply,) = yield [Call(self.stage, prompt.name, prompt.hash, (doc_id,), request, self.check)]
        return written_text(reply.text) if self.check(reply) == Outcome.OK else None

    def check(self, reply: Reply) -> Outcome:
        outcome = check_text(reply)
        if outcome not in (Outcome.OK, Outcome.TRUNCATED):
            return outcome
        return Outcome.OK if written_text(reply.text) else Outcome.EMPTY


@dataclass(frozen=True)
class Passages:
    """Passages of a corpus, as what is asked about it: those of `doc_ids`, or all. `reference`: of a collection of it."""

    name: str
    reference: str
    corpus: Corpus
    doc_ids: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.corpus if self.doc_ids is None else self.doc_ids)

    def __iter__(self) -> Iterator[Question]:
        ids = self._ids()
        rows = None if self.doc_ids is None else self.corpus.rows(self.doc_ids)
        for doc_id, text in zip(ids, self.corpus.texts(rows), strict=True):
            yield Question(doc_id, "", {doc_id: text})

    def items(self) -> Iterator[Item]:
        return ({"doc_id": doc_id} for doc_id in self._ids())

    def opener(self) -> Callable[[], Callable[[Sequence[Item]], "Passages"]]:
        return partial(_open, self.name, self.reference)

    def _ids(self) -> Iterable[str]:
        return self.corpus.ids() if self.doc_ids is None else self.doc_ids


def _open(name: str, reference: str) -> Callable[[Sequence[Item]], Passages]:
    corpus = open_corpus(reference)
    return lambda items: Passages(name, reference, corpus, [str(item["doc_id"]) for item in items])


def expanded_corpus(corpus: Corpus, written: Mapping[str, str], before: bool) -> Corpus:
    """The passages with what was `written` for them, by id, after their text or before it. The ids and titles, their order and
    the language stay. It is kept in the cache, and its hash is that of its content, so that indexes, token ids and vectors of
    it are not taken for those of `corpus`."""
    return _built(corpus, {d: [text] for d, text in written.items()}, before, lambda doc_id, at: doc_id) if written else corpus


@contextmanager
def corpus_of_each(corpus: Corpus, texts: Mapping[str, Sequence[str]], before: bool, plain: bool = False) -> Iterator[Corpus]:
    """As `expanded_corpus`, each passage as often as it has texts, once with each of them, under the ids of `with_text`. What
    has none stays as it is; where `plain`, all do, and those with texts follow them. It is there for the block alone, with
    what is made of it."""
    if not texts:
        yield corpus
        return
    place = cache_dir()
    with writable(place):
        place.mkdir(parents=True, exist_ok=True)
        once = TemporaryDirectory(prefix=".once-", dir=place)
    with once as folder:
        yield _built(corpus, texts, before, with_text, plain, Path(folder))


def with_text(doc_id: str, at: int) -> str:
    """The id of a passage, or of a query, with the text of that place, which no other has: ids have no white space."""
    return f"{doc_id} {at}"


def _built(
    corpus: Corpus,
    texts: Mapping[str, Sequence[str]],
    before: bool,
    named: Callable[[str, int], str],
    plain: bool = False,
    cache: Path | None = None,
) -> Corpus:
    running = hashlib.blake2b(digest_size=16)
    for doc_id in corpus.ids():
        for at, more in enumerate(texts.get(doc_id, ())):
            running.update(f"{named(doc_id, at)}\0{more}\0".encode("utf-8", "surrogatepass"))
    key = digest("expanded", corpus.hash, before, running.hexdigest(), *([plain] if plain else []))
    folder = (cache or cache_dir()) / "corpora" / key

    def rows() -> Iterator[tuple[str, str, str]]:
        for doc_id, title, text in corpus.passages():
            if plain or doc_id not in texts:
                yield doc_id, title, text
            for at, more in enumerate(texts.get(doc_id, ())):
                yield named(doc_id, at), title, f"{more} {text}" if before else f"{text} {more}"

    if not is_whole(folder):
        build_corpus(folder, rows())
    return Corpus(folder, cache).in_language(corpus.language)
