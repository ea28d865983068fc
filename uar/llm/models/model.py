"""The interface of an engine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from uar.llm.record import Reply, Request
from uar.machine.model_files import identity
from uar.storage.files import digest


class Engine(ABC):
    """Takes requests and gives their replies in any order.

    `window`: how many requests the caller should keep submitted, so that the engine can batch or share work.
    """

    name: str
    window: int

    @abstractmethod
    def submit(self, ticket: int, request: Request) -> None:
        """Queue a request under a number that the caller chooses."""

    @abstractmethod
    def step(self) -> list[tuple[int, Reply]]:
        """Work until at least one submitted request is done; raises EngineError where none can be."""

    def close(self) -> None:  # noqa: B027 most engines hold nothing
        """Give back what the engine holds."""


class LLM(NamedTuple):
    """A model of a run: its name in records, and the engine that asks it; without one only the store answers."""

    name: str
    engine: Engine | None = None


def identity_of(llm: Mapping[str, Any]) -> str:
    """The model's name in records: the same for every engine that loads the same weights. Fields that a server is sent besides
    make another name."""
    if not llm["_target_"].endswith("OpenAIEngine"):
        return identity(llm["model"], llm.get("revision"))
    name = f"{llm['model']}@{llm['revision']}" if llm.get("revision") else str(llm["model"])
    extra = llm.get("extra") or {}
    plain = OmegaConf.to_container(extra, resolve=True) if OmegaConf.is_config(extra) else extra
    return f"{name}+{digest(plain)[:8]}" if plain else name
