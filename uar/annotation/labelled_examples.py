"""Labelled examples that a prompt shows before what it asks: those of the nearest questions that people judged."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uar.collections import Collection, open_collection
from uar.collections.images import Image
from uar.collections.reference import parse
from uar.errors import MissingModel, UserError
from uar.llm.call import Question
from uar.storage.ordering import rank_of

if TYPE_CHECKING:  # an annotation without examples has no use for torch
    from uar.retrievers.bi_encoder.encoder import BiEncoder

log = logging.getLogger(__name__)
KINDS = ("knn", "random")
SPARE = 32  # questions besides those wanted that are sorted first
BLOCK = 256  # questions that are encoded at once


class Shot(NamedTuple):
    """A question, with its image where it has one, a passage, and the grade that people gave it."""

    question: str
    image: Image | None
    passage: str
    grade: int
    useful: bool


@dataclass(frozen=True)
class LabelledExamples:
    """Of the split `reference`, of which `share` of the judged questions are shown, the first that `acquire=random` draws with
    seed 0. `kind`: `knn`, the questions nearest by the vectors of `model`, the nearest last (arXiv 2504.15022); `random`,
    drawn by the asked question. Each gives a useful and a useless passage. The question that is asked, and any of the same
    words and image, is none of its examples, and a test split is refused."""

    kind: str
    reference: str
    share: float
    shots: int
    model: str
    top: int  # grade of the scale

    def __post_init__(self) -> None:
        kind, place, split = parse(self.reference)
        if "test" in (place if kind == "irds" else split).lower():
            raise UserError(
                f"annotator.examples_from={self.reference}: labels of a test split must not be shown; give a training split"
            )

    def of(self, question: Question) -> list[Shot]:
        """At most `shots`, as they are shown; a function of the question alone."""
        return self._shots(self._chosen(question))

    def _shots(self, query_ids: Sequence[str]) -> list[Shot]:
        found: list[Shot] = []
        for place, query_id in enumerate(query_ids):
            useful, useless = self._pair(query_id)
            found += [useless, useful] if place % 2 else [useful, useless]  # so that no grade always comes last
        return found[-self.shots :]

    def _chosen(self, question: Question) -> list[str]:
        wanted, asked = math.ceil(self.shots / 2), _said(question.text, question.image)
        found: list[str] = []
        for at in self._order(question, wanted):
            query_id = self._queries[at]
            other = self.collection.queries[query_id]
            if query_id != question.id and _said(other.text, other.image) != asked:
                found.append(query_id)
                if len(found) == wanted:
                    break
        return found[::-1]

    def _order(self, question: Question, wanted: int) -> Iterator[int]:
        """Places of all questions, the best first."""
        if self.kind == "random":
            yield from np.random.default_rng(_number("example", question.id)).permutation(len(self._queries)).tolist()
            return
        near = self._vectors @ self._vector_of(question)
        few = min(len(near), wanted + SPARE)  # all are sorted where nearly all of the first are of the same words
        first = np.argpartition(-near, few - 1)[:few]
        yield from first[np.lexsort((first, -near[first]))].tolist()
        rest = np.setdiff1d(np.arange(len(near)), first)
        yield from rest[np.lexsort((rest, -near[rest]))].tolist()

    @cached_property
    def collection(self) -> Collection:
        return open_collection(self.reference)

    @cached_property
    def _queries(self) -> list[str]:
        """Whose labels may be shown."""
        collection = self.collection
        judged = collection.by_people(q for q in collection.queries if collection.trainable(q))
        drawn = set(sorted(judged, key=lambda q: rank_of(0, "human", q))[: round(self.share * len(judged))])
        if not drawn:
            raise UserError(
                f"annotator.examples_from={self.reference}: none of {len(judged)} questions with human labels is left to show "
                f"(annotator.examples_share={self.share}); give a split that people judged, or a larger share"
            )
        line = "annotator.examples=%s: human labels of %d questions of %s are shown%s"
        without = sum(not self._wrong(q) for q in drawn)
        told = (
            f"; {without} of them have no useless passage, in whose place one stands that answers another" if without else ""
        )
        log.info(line, self.kind, len(drawn), self.reference, told)
        return [q for q in judged if q in drawn]

    def _wrong(self, query_id: str) -> list[str]:
        """Passages that people judged useless."""
        collection = self.collection
        known = collection.qrels[query_id].items()
        return [d for d, g in known if g < collection.positive_grade and collection.corpus.row(d) >= 0]

    def _pair(self, query_id: str) -> tuple[Shot, Shot]:
        collection = self.collection
        known = collection.qrels[query_id]
        if wrong := self._wrong(query_id):
            useless = min(wrong, key=lambda d: (known[d], rank_of(0, "useless", query_id, d)))
        else:
            useless = self._of_another(query_id)
        return self._shot(query_id, collection.trainable(query_id)[0]), self._shot(query_id, useless)

    def _of_another(self, query_id: str) -> str:
        """What answers another question, as all that is known where judgements are positives alone."""
        start = _number("useless", query_id)
        for step in range(len(self._queries)):
            other = self._queries[(start + step) % len(self._queries)]
            best = self.collection.trainable(other)[0]
            if other != query_id and best not in self.collection.qrels[query_id]:
                return best
        raise UserError(f"annotator.examples_from={self.reference}: there is no useless passage to show; give more labels")

    def _shot(self, query_id: str, doc_id: str) -> Shot:
        collection = self.collection
        grade = collection.qrels[query_id].get(doc_id, 0)
        useful = grade >= collection.positive_grade
        shown = grade if self._same_scale else self.top * useful
        text = collection.corpus.text(collection.corpus.row(doc_id))
        query = collection.queries[query_id]
        return Shot(query.text, query.image, text, shown, useful)

    @cached_property
    def _same_scale(self) -> bool:
        """Whether people graded on as many grades as the prompt asks for."""
        return max(g for grades in self.collection.qrels.values() for g in grades.values()) == self.top > 1

    @cached_property
    def _encoder(self) -> "BiEncoder":
        from uar.machine.precision import device
        from uar.retrievers.bi_encoder.encoder import BiEncoder
        from uar.retrievers.model_folder import open_model

        try:
            found = open_model(self.model, None)
        except MissingModel as error:
            raise UserError(f"annotator.examples_model={self.model}: {error}") from error
        if not isinstance(found, BiEncoder):
            raise UserError(f"annotator.examples_model={self.model}: {found.name} makes no vector a text; give a bi-encoder")
        return found.to(device()).eval()

    @cached_property
    def _vectors(self) -> np.ndarray:
        """(queries, dim) of length 1."""
        return self._encoded([self.collection.queries[q].text for q in self._queries])

    def _vector_of(self, question: Question) -> np.ndarray:
        place = self._places.get(question.id)
        known = place is not None and self.collection.queries[question.id].text == question.text
        return self._vectors[place] if known else self._encoded([question.text])[0]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {q: at for at, q in enumerate(self._queries)}

    def _encoded(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        encoder, own = self._encoder, self._encoder.settings
        prefixed = [own.query_prefix + text for text in texts]
        ids = encoder.tokenizer(prefixed, truncation=True, max_length=own.query_length)["input_ids"]
        with torch.no_grad():
            parts = [
                encoder([np.array(i) for i in ids[at : at + BLOCK]], role="query").float().cpu().numpy()
                for at in range(0, len(ids), BLOCK)
            ]
        vectors = np.concatenate(parts)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _number(*names: str) -> int:
    """Drawn by the names."""
    return int.from_bytes(rank_of(0, *names)[:8], "little")


def _said(text: str, image: Image | None) -> tuple[str, str | None]:
    """What questions of the same words and image have in common."""
    return " ".join(text.casefold().split()).strip("?!. "), image.key if image else None
