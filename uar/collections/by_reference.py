"""Opening what a reference names."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from uar.collections.answer_files import with_answers
from uar.collections.beir import read_corpus, read_folder
from uar.collections.collection import Collection
from uar.collections.documents import Corpus
from uar.collections.irds import read_irds, read_irds_corpus
from uar.collections.languages import AUTO, language_code
from uar.collections.people_judgements import with_judgements
from uar.collections.reference import parse, resolve, slug
from uar.errors import UserError


def open_collection(reference: str, language: str = AUTO) -> Collection:
    """Open what a reference names, its passages in a language, which `auto` leaves to the collection. See
    `uar.collections.beir` and `uar.collections.irds` for the errors. Presets name several collections and are taken apart by
    `uar.collections.presets.expand`."""
    kind, place, split = parse(reference)
    if kind == "irds":
        found = read_irds(place, reference, slug(reference))
    else:
        found = read_folder(Path(place), split, reference, slug(reference))
    return replace(found, corpus=found.corpus.in_language(language_code(language)))


def open_corpus(reference: str, language: str = AUTO) -> Corpus:
    """The passages alone of what a reference names: its split need not exist."""
    kind, place, _ = parse(reference)
    corpus = read_irds_corpus(place, reference) if kind == "irds" else read_corpus(Path(place), reference)
    return corpus.in_language(language_code(language))


def open_training_split(
    value: str | None,
    path: str | None,
    positive_grade: int | None = None,
    answers: Mapping[str, str] | str | None = None,
    language: str = AUTO,
    judgements: str | None = None,
    assisted: bool = False,
) -> Collection:
    """The collection that `dataset.train` names, which must not be null; `positive_grade` overrides its own, and `answers`, a
    file or {SLUG: FILE}, the answers of the questions that it has. `language`: see `open_collection`. `judgements`: a file in
    place of its qrels; see `with_judgements` for it and `assisted`."""
    reference = resolve(value, path)
    if reference is None:
        raise UserError("dataset.train is null; name the split to annotate or train on")
    (collection,) = with_answers([open_collection(reference, language)], answers, "dataset.answers", of_all=False)
    if judgements is not None:
        collection = with_judgements(collection, Path(judgements), assisted)
    return collection if positive_grade is None else replace(collection, positive_grade=positive_grade)
