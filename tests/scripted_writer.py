"""An LLM that writes for queries and passages what a test says, as a config names it."""

from hydra.errors import InstantiationException
from omegaconf import DictConfig
from scripted import Scripted

from uar.expansion import expanded
from uar.llm.record import Reply, Request
from uar.retrievers.ranker import Ranker

WRITES: dict[str, str | Reply] = {}  # by what a prompt holds, a question or the beginning of a passage; "" for others
ASKED: list[Request] = []


def _answer(request: Request) -> Reply | str:
    ASKED.append(request)
    text = "\n".join(text for _, text in request.messages)
    return next(reply for held, reply in WRITES.items() if held in text)


class Writer(Scripted):
    def __init__(self, model: str) -> None:
        super().__init__(_answer)


LLM = {"_target_": f"{__name__}.Writer", "model": "writer"}


def forget() -> None:
    WRITES.clear()
    ASKED.clear()


def with_writer(ranker: Ranker, cfg: DictConfig) -> Ranker:
    """`ranker` with the config's `expand`, whose LLM is this one."""
    cfg.expand.llm = LLM
    try:
        return expanded(ranker, cfg.expand)
    except InstantiationException as error:  # which commands tell as what is behind it
        raise error.__cause__ or error from error
