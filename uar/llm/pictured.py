"""Turns of a chat that are shown with an image."""

from collections.abc import Iterable
from typing import Any

from uar.collections.images import Image
from uar.errors import UserError


class Pictured(str):
    """A turn's text, and the image that stands before it. Two are one where both the text and the image are."""

    image: Image

    def __new__(cls, text: str, image: Image) -> "Pictured":
        made = super().__new__(cls, text)
        made.image = image
        return made

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True and isinstance(other, Pictured) and self.image == other.image

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((str(self), self.image))

    def __getnewargs__(self) -> tuple[str, Image]:  # type: ignore[override]
        return str(self), self.image


def images_of(messages: Iterable[tuple[str, str]]) -> list[Image]:
    """In the order of the turns."""
    return [text.image for _, text in messages if isinstance(text, Pictured)]


def image_keys(messages: Iterable[tuple[str, str]]) -> list[tuple[int, str]]:
    """What of the images tells one chat from another of the same texts: the place of each turn that has one, and its key."""
    return [(place, text.image.key) for place, (_, text) in enumerate(messages) if isinstance(text, Pictured)]


def without_images(messages: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The texts alone."""
    return tuple((role, str(text)) for role, text in messages)


def check_shown(query_id: str, asker: Any, models: Iterable[Any]) -> None:
    """UserError where the image of a question would not be shown: `asker` says nothing of it, or one of `models`, or of their
    classes, takes text alone."""
    if asker.needs_llm and not asker.shows_images:
        raise UserError(
            f"query {query_id!r} has an image, which {type(asker).__name__} shows to no LLM; use a list-wise or point-wise "
            "annotator, or leave `image` out of queries.jsonl"
        )
    for model in models:
        if not model.takes_images:
            raise UserError(
                f"query {query_id!r} has an image, and llm={model.name} takes text alone; use llm=openai with a server whose "
                "model takes images, or leave `image` out of queries.jsonl"
            )
