"""What every judge of answers is: an asker whose chain turns a question with its answer into values of measures."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

from uar.collections.images import Image
from uar.llm.call import Call, Chain, Question
from uar.llm.prompted import Chatting
from uar.llm.prompts import ChatPrompt, load_chat
from uar.llm.record import Outcome, Reply


@dataclass(frozen=True)
class AnsweredQuestion(Question):
    """`answer`: what the reader wrote, empty where it wrote nothing. `passages`: as it was shown them, in that order, which is
    how it counts them; `ranked`: their ids, best first. `positives`: the gold passages of the qrels that the corpus has, best
    grade first, whole."""

    answer: str = ""
    ranked: tuple[str, ...] = ()
    positives: Mapping[str, str] = field(default_factory=dict)


class Judged(NamedTuple):
    """`values`: by measure, each from 0 to 1; a measure that is not defined for the question is not among them. `detail`: what
    they were made of, in plain values."""

    values: dict[str, float]
    detail: dict[str, Any]


@dataclass(frozen=True)
class Judge(Chatting):
    """What `judged` yields and returns is a chain, see `Asker`. Its value is a `Judged`, or None where a reply could not be
    read: such a question has failed, and no value is made of it.

    `constrain`: hold replies to their form where the engine can.
    `measures`: names of what it gives. `prompts`: by the option that names a prompt, what that is supplied with.
    `needs_passages`: it has nothing to say of an answer without passages. `needs_citations`: nor of one without citations."""

    measures: ClassVar[tuple[str, ...]]
    prompts: ClassVar[Mapping[str, frozenset[str]]]
    needs_passages: ClassVar[bool] = True
    needs_citations: ClassVar[bool] = False

    constrain: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._prompts()  # one that cannot be read is refused before anything is asked

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(prompt.name for prompt in self._prompts())

    @abstractmethod
    def judged(self, question: AnsweredQuestion) -> Chain:
        """The chain of a question with its answer."""

    def chain(self, question: Question) -> Chain:
        if not isinstance(question, AnsweredQuestion):
            raise TypeError(f"{type(self).__name__} judges answers; question {question.id!r} comes without one")
        return self.judged(question)

    @property
    def definition(self) -> str:
        """The prompts that it asks with, each with the beginning of its hash, and its options that are not as by default."""
        made_of = [f"{prompt.name} ({prompt.hash[:8]})" for prompt in self._prompts()]
        options = [(f.name, getattr(self, f.name), f.default) for f in fields(self) if f.name not in self.prompts]
        return f"judged with {', '.join(made_of + [f'{name}={value}' for name, value, usual in options if value != usual])}"

    def how(self, questions: Sequence[AnsweredQuestion]) -> str:
        """The definition, and what else has to be the same where values of these questions are compared with others."""
        return self.definition

    def _prompts(self) -> list[ChatPrompt]:
        return [load_chat(getattr(self, option), variables) for option, variables in self.prompts.items()]

    def call(
        self,
        option: str,
        values: Mapping[str, Any],
        tokens: int,
        check: Callable[[Reply], Outcome],
        doc_ids: Iterable[str] = (),
        pattern: str | None = None,
        image: Image | None = None,
    ) -> Call:
        """A call with the prompt that `option` names, of at most `tokens`; the prompt's name is the stage. `image`: the
        question's, which a judge shows wherever it shows the question, and then has `shows_images`."""
        prompt = load_chat(getattr(self, option), self.prompts[option])
        held = pattern if self.constrain and not self.reasoning else None
        request = self.generate(prompt.render(image=image, **values), tokens, held)
        return Call(prompt.name, prompt.name, prompt.hash, tuple(doc_ids), request, check)
