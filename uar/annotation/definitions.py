"""What a question asks for, written down before its passages are graded (DIRAS, arXiv 2406.14162)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from uar.errors import DataError
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import OnePrompt
from uar.llm.prompts.escaping import as_material
from uar.llm.record import Outcome, Reply
from uar.llm.replies import check_text
from uar.storage.files import file_hash
from uar.storage.lines import contradiction, read_id, read_jsonl, read_string

WRITE = "write"  # the option's value that has the LLM write them; another one is a file
EXAMPLE = "It asks for the cause. What counts: a statement of what brings it about, a study that names one, a mechanism."


@dataclass(frozen=True)
class DefinitionWriter(OnePrompt):
    """One call a question; the chain's value is the definition. One that was cut at `tokens` counts as far as it goes."""

    variables = frozenset({"query"})
    shows_images = True
    stage: ClassVar[str] = "definition"

    tokens: int = 192

    @property
    def stages(self) -> tuple[str, ...]:
        return (self.stage,)

    def chain(self, question: Question) -> Chain:
        messages = self.prompt.render(image=question.image, query=as_material(question.text))
        request = self.generate(messages, self.tokens)
        (reply,) = yield [Call(self.stage, self.prompt.name, self.prompt.hash, (), request, self.check, example=EXAMPLE)]
        return " ".join(reply.text.split()) if self.check(reply) == Outcome.OK else None

    def check(self, reply: Reply) -> Outcome:
        outcome = check_text(reply)
        return Outcome.OK if outcome == Outcome.TRUNCATED and reply.text.strip() else outcome


def read_definitions(path: Path) -> Mapping[str, str]:
    """Definitions by query id, of {query_id, definition} lines. DataError names a faulty line."""
    if not path.is_file():
        raise DataError(path, f"annotator.definitions: no such file; give {{query_id, definition}} lines, or {WRITE}")
    return _read(path, file_hash(path))


@lru_cache(maxsize=4)
def _read(path: Path, content: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, row in read_jsonl(path):
        query_id = read_id(path, number, row, "query_id")
        text = " ".join(read_string(path, number, row, "definition").split())
        if not text:
            raise DataError(path, "'definition' is empty; write one, or leave the line out", number)
        if found.setdefault(query_id, text) != text:
            raise contradiction(path, f"the definition of {query_id!r}", lines[query_id], number)
        lines.setdefault(query_id, number)
    return found


def undefined(definitions: Mapping[str, str], query_ids: Iterable[str]) -> int:
    """Queries that have none."""
    return sum(query_id not in definitions for query_id in query_ids)
