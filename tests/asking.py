"""Asking engines in tests, and real pairs to ask them."""

from collections.abc import Sequence

from uar.collections import open_collection
from uar.llm.models import Model
from uar.llm.prompts import load_text
from uar.llm.record import Outcome, Reply, Request, Score


def ask(engine: Model, requests: Sequence[Request]) -> list[Reply]:
    """Replies in the order of the requests, all submitted at once."""
    for ticket, request in enumerate(requests):
        engine.submit(ticket, request)
    replies: dict[int, Reply] = {}
    while len(replies) < len(requests):
        replies.update(engine.step())
    return [replies[n] for n in range(len(requests))]


def nats(replies: Sequence[Reply]) -> list[float]:
    assert all(reply.outcome == Outcome.OK for reply in replies), replies
    return [reply.mean_logprob() for reply in replies]


def beginnings(questions: int, words: int) -> list[Score]:
    """Questions of mini, each with the first words of six passages, of its own subject and of others."""
    mini = open_collection("mini:train")
    prompt = load_text("likelihood_question", frozenset({"passage", "query"}))
    chosen = []
    for query_id in list(mini.queries)[: 7 * questions : 7]:
        graded = list(mini.qrels[query_id])[:4]
        others = [d for d in mini.corpus.ids() if d not in mini.qrels[query_id]][:2]
        for row in mini.corpus.rows(graded + others):
            start = " ".join(mini.corpus.text(row).split()[:words])
            chosen.append(Score(*prompt.render(passage=start, query=mini.queries[query_id].text)))
    assert len(set(chosen)) == 6 * questions
    return chosen
