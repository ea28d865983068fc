"""Opening what a reference names."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from uar.collections.answer_files import with_answers
from uar.collections.beir import read_corpus, read_folder
from uar.collections.collection import Collection
from uar.collections.documents import Corpus
from uar.collections.irds import read_irds, read_irds_corpus
from uar.collections.reference import parse, resolve, slug
from uar.errors import UserError


def open_collection(reference: str) -> Collection:
    """Open what a reference names; see `uar.collections.beir` and `uar.collections.irds` for the errors. Presets name
    several collections and are taken apart by `uar.collections.presets.expand`."""
    kind, place, split = parse(reference)
    if kind == "irds":
        return read_irds(place, reference, slug(reference))
    return read_folder(Path(place), split, reference, slug(reference))


def open_corpus(reference: str) -> Corpus:
    """The passages alone of what a reference names: its split need not exist."""
    kind, place, _ = parse(reference)
    return read_irds_corpus(place, reference) if kind == "irds" else read_corpus(Path(place), reference)


def open_training_split(
    value: str | None,
    path: str | None,
    positive_grade: int | None = None,
    answers: Mapping[str, str] | str | None = None,
) -> Collection:
    """The collection that `dataset.train` names, which must not be null; `positive_grade` overrides its own, and `answers`, a
    file or {SLUG: FILE}, the answers of the questions that it has."""
    reference = resolve(value, path)
    if reference is None:
        raise UserError("dataset.train is null; name the split to annotate or train on")
    (collection,) = with_answers([open_collection(reference)], answers, "dataset.answers", of_all=False)
    return collection if positive_grade is None else replace(collection, positive_grade=positive_grade)
