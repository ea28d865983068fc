"""The interface of a model that is asked, in this process or behind a server."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import hydra

from uar.llm.record import Generate, Reply, Request, without_pattern, without_until
from uar.machine.model_files import files_beside, identity


class Model(ABC):
    """Takes requests and gives their replies in any order.

    `window`: how many requests the caller should keep submitted, so that the model can batch or share work. `commit`: on the
    hub, of the weights that it loaded. `config`: the plain config that a model of this class is made from. `free_trial`:
    whether it is loaded in seconds and asked at no cost. `keeps_prefixes`: whether what the prompts of several texts begin
    with alike is computed once. `ends_early`: whether it ends replies at `Generate.until`. `steady`: whether how
    fast it was tells how fast it will be. `takes_images`: whether it can be shown images.
    """

    name: str
    window: int
    commit: str | None = None
    free_trial = False
    keeps_prefixes = False
    ends_early = False
    steady = True
    takes_images = False

    @classmethod
    def identity(cls, config: Mapping[str, Any]) -> str:
        """The model's name in records: the same for every class that loads the same weights, with the same files of
        tokenizer and chat template. A model of the hub is named by its revision, since only who has loaded it
        knows the commit; this stands in the records."""
        return identity(config["model"], config.get("revision")) + files_beside(config["model"])

    @classmethod
    def gpus(cls, config: Mapping[str, Any]) -> float | None:
        """GPUs that it works on where there are any; None where it cannot be known."""
        return 1

    @classmethod
    def price_factor(cls, config: Mapping[str, Any]) -> float:
        """What its tokens cost, as a share of the prices of a run."""
        return 1.0

    @abstractmethod
    def submit(self, ticket: int, request: Request) -> None:
        """Queue a request under a number that the caller chooses."""

    @abstractmethod
    def step(self) -> list[tuple[int, Reply]]:
        """Work until at least one submitted request is done; raises EngineError where none can be."""

    def holds(self, request: Generate) -> bool:
        """Whether it holds the reply to the request's pattern."""
        return False

    def serves(self) -> dict[str, Any]:
        """What the ledger says of the model that answers."""
        return {"commit": self.commit} if self.commit else {}

    def close(self) -> None:  # noqa: B027 most models hold nothing
        """Give back what the model holds."""


class LLM(NamedTuple):
    """A model of a run: its name in records, and what asks it; without one only the store answers."""

    name: str
    model: Model | None = None

    @property
    def commit(self) -> str | None:
        return self.model.commit if self.model else None

    @property
    def shown(self) -> str:
        """What its records name it."""
        return f"{self.name}={self.commit}" if self.commit else self.name

    def held(self, request: Request) -> bool | None:
        """Whether replies follow the request's pattern; None where nothing is asked."""
        return None if self.model is None else isinstance(request, Generate) and self.model.holds(request)

    def asked(self, request: Request) -> Request:
        """The request as the model can follow it."""
        request = without_pattern(request) if self.held(request) is False else request
        return request if self.model is None or self.model.ends_early else without_until(request)


def model_class(llm: Mapping[str, Any]) -> type[Model]:
    """Of a model's config."""
    found: type[Model] = hydra.utils.get_class(llm["_target_"])
    return found


def identity_of(llm: Mapping[str, Any]) -> str:
    """The model's name in records, by its config."""
    return model_class(llm).identity(llm)
