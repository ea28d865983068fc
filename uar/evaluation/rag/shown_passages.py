"""Which passages a question is answered from, and how much of them is shown."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uar.collections import Collection
from uar.collections.languages import head, words_in
from uar.errors import UserError
from uar.machine.model_files import locate, pretrained

log = logging.getLogger(__name__)
Passages = dict[str, str]  # passage id -> its text as it is shown, in the order shown
Cut = Callable[[str, int], tuple[str, int]]  # (text, most) -> (its beginning of at most so many units, units of it)


def words(text: str, most: int) -> tuple[str, int]:
    """The first words of a text, and their number."""
    kept = " ".join(head(text, most).split())
    return kept, words_in(kept)


class Tokens:
    """Like `words`, in tokens of a model. `model`: a reference; UserError where its tokenizer cannot be loaded."""

    def __init__(self, model: str) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = pretrained(AutoTokenizer, locate(model))
        except (OSError, ValueError, UserError) as error:
            message = str(error).splitlines()[0]
            raise UserError(
                f"rag.max_tokens: no tokenizer in {model} ({message}); give rag.tokenizer=MODEL, or use rag.max_words"
            ) from error

    def __call__(self, text: str, most: int) -> tuple[str, int]:
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in found["offset_mapping"]]
        return (text, len(ends)) if len(ends) <= most else (text[: ends[most - 1]].rstrip(), most)


def budgets(max_words: int | None, max_tokens: int | None, tokenizer: str | None) -> dict[str, tuple[Cut, int]]:
    """How much of all passages of a question is shown, by option; `tokenizer`: a model, which counts the tokens."""
    found: dict[str, tuple[Cut, int]] = {}
    if max_words is not None:
        found["max_words"] = (words, max_words)
    if max_tokens is not None:
        found["max_tokens"] = (Tokens(str(tokenizer)), max_tokens)
    return found


def show(
    collection: Collection,
    doc_ids: Mapping[str, Sequence[str]],
    order: str,
    shown: Callable[[str], str],
    units: Mapping[str, tuple[Cut, int]],
) -> dict[str, Passages]:
    """Passages a query from their ids in rank order. `shown`: what is made of a text; `units`: by option, how to cut a text
    and how much of all a query's passages may be shown; the last in rank are cut, or left out, first, and it is told."""
    found: dict[str, Passages] = {}
    cut = dict.fromkeys(units, 0)
    dropped = dict.fromkeys(units, 0)
    for query_id, ids in doc_ids.items():
        rows = {d: collection.corpus.row(d) for d in ids}
        lost = next((d for d, row in rows.items() if row < 0), None)
        if lost is not None:
            raise UserError(
                f"{collection.reference}: passage {lost!r} of query {query_id!r} is not in the corpus, so it cannot be shown; "
                "give a run of this corpus"
            )
        passages = {d: shown(collection.corpus.text(row)) for d, row in rows.items()}
        for option, (shorten, most) in units.items():
            before, passages = passages, _within(passages, shorten, most)
            dropped[option] += len(before) - len(passages)
            cut[option] += sum(text != before[d] for d, text in passages.items())
        found[query_id] = dict(reversed(passages.items())) if order == "reversed" else passages
    for option, (_, most) in units.items():
        if cut[option] or dropped[option]:
            log.info(
                "%s: rag.%s=%d: %d passages are cut and %d left out",
                collection.slug,
                option,
                most,
                cut[option],
                dropped[option],
            )
    return found


def _within(passages: Passages, shorten: Cut, most: int) -> Passages:
    kept: Passages = {}
    left = most
    for doc_id, text in passages.items():
        if left <= 0:
            break
        short, used = shorten(text, left)
        left -= used
        kept[doc_id] = short
    return kept
