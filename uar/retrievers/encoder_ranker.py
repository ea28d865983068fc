"""What rankers of all kinds of encoders have in common: the encoder, in a session."""

from copy import copy
from typing import Self

from uar.retrievers.ranker import Ranker
from uar.retrievers.session import Session
from uar.retrievers.trainable import Encoder


class EncoderRanker(Ranker):
    """An encoder in a session. `part`: see `Ranker.opened`."""

    def __init__(self, encoder: Encoder, session: Session, part: str = "") -> None:
        self._encoder, self._session, self._part = encoder, session, part
        self.name = encoder.name

    @property
    def lengths(self) -> dict[str, int]:
        return self._encoder.lengths

    def with_room(self, query_length: int | None) -> Self:
        other = copy(self)
        other._encoder = self._encoder.with_room(query_length)
        return other
