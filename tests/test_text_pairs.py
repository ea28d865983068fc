"""Descriptions with misleading ones, questions with hard negatives: how they are read, written, and learnt from."""

import json
import math
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from llm_server import LLMServer, Messages
from scripted import Scripted

from uar.annotation.annotate_run import open_writing
from uar.annotation.means import llm_configs
from uar.collections import Collection, open_collection
from uar.errors import UserError
from uar.labels import Example, Stage
from uar.launch.entry import composed
from uar.llm.call import Question
from uar.llm.chains import Chains
from uar.llm.costs.ledger import Prices
from uar.llm.models import LLM
from uar.llm.record import Outcome, Reply, Request
from uar.llm.store.store import Store
from uar.losses import contrastive
from uar.losses.misleading import misleading
from uar.questions import DescriptionWriter, HardWriter
from uar.questions.filters import Written, without_copies_of_passages
from uar.questions.text_pairs import check_lines, check_negative, read_lines_of
from uar.questions.writer import Asked
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.training.batches import BatchStream
from uar.training.further_terms import FurtherTerms
from uar.training.further_texts import further_texts, misleading_of
from uar.training.module import RetrieverModule

HEART = Question("d1", "", {"d1": "The heart pumps blood through the body."})
LONG = "The heart is a muscle of which poets speak more than physicians, and it is red."
DESCRIBE = DescriptionWriter(template="write_descriptions", number=2)
HARD = HardWriter(template="write_hard_questions", number=2)


def asked(writer: DescriptionWriter | HardWriter, folder: Path, *replies: Reply | str) -> list[Asked] | None:
    """What a chain returns whose calls, in order, have these replies."""
    coming = list(replies)
    engine = Scripted(lambda request: coming.pop(0))
    engine.step = lambda: [(ticket, as_reply(engine.answer(r))) for ticket, r in [engine.waiting.pop(0)]]  # type: ignore[method-assign]
    store = Store(folder)
    try:
        return dict(Chains(writer, store, "toy", [LLM("x", engine)], 1.0).run([HEART])).get("d1")
    finally:
        store.close()


def as_reply(reply: Reply | str) -> Reply:
    return reply if isinstance(reply, Reply) else Reply(reply)


def test_descriptions_are_paired_with_misleading_ones(tmp_path: Path) -> None:
    valid = "Here are two:\n1. an organ that moves a liquid\n2. - a part that serves the whole\n3. one too many"
    false = '- an organ that cleans a liquid\n- "an organ that moves a liquid"\n'
    pairs = [Asked("an organ that moves a liquid", "", "an organ that cleans a liquid"), Asked("a part that serves the whole")]
    assert asked(DESCRIBE, tmp_path / "a", valid, false) == pairs
    assert asked(DESCRIBE, tmp_path / "b", valid, Reply("", Outcome.REFUSED)) == [Asked(pair.question) for pair in pairs]
    assert asked(DESCRIBE, tmp_path / "c", Reply("", Outcome.REFUSED), false) is None


def test_a_hard_question_has_the_negative_that_was_written_for_it(tmp_path: Path) -> None:
    questions = "1. Why do I turn pale when I faint?\n2. Why do divers' pulses fall?\nThat is all."
    found = asked(HARD, tmp_path / "a", questions, LONG, "I cannot.")
    assert found == [Asked("Why do I turn pale when I faint?", "", LONG), Asked("Why do divers' pulses fall?")]
    assert asked(HARD, tmp_path / "b", "No question here.") is None


@pytest.mark.parametrize(
    ("reply", "lines", "outcome"),
    [
        (Reply("a\n* b\n\na"), ["a", "b"], Outcome.OK),
        (Reply("a\nb that runs o", Outcome.TRUNCATED), ["a"], Outcome.OK),
        (Reply("a that runs o", Outcome.TRUNCATED), [], Outcome.TRUNCATED),
        (Reply("Sure, here they are:\n"), [], Outcome.EMPTY),
        (Reply("a", Outcome.ERROR), [], Outcome.ERROR),
    ],
)
def test_lines_are_read_from_what_models_write(reply: Reply, lines: list[str], outcome: Outcome) -> None:
    assert (read_lines_of(reply), check_lines(reply)) == (lines, outcome)


def test_a_negative_that_says_nothing_or_what_its_passage_says_is_none() -> None:
    good = (Reply(LONG), Reply(LONG, Outcome.TRUNCATED), Reply("心臓は詩人がよく語る赤い筋肉である。"))
    assert [check_negative(r) for r in (*good, Reply("No."), Reply("いいえ。"))] == [Outcome.OK] * 3 + [Outcome.EMPTY] * 2
    same = "Through the body, the heart is pumping the blood."
    questions = [Written("q1", "why?", "d1", "", same), Written("q2", "why?", "d1", "", LONG), Written("q3", "why?", "d1")]
    kept = without_copies_of_passages(questions, HEART.passages, 0.8, "en")
    assert [q.against for q in kept] == ["", LONG, ""]


def write(folder: Path, out: Path, server: LLMServer, questions: str) -> tuple[Collection, dict]:
    """What an annotate run does before it annotates."""
    given = ["dataset=local", f"dataset.path={folder}", "dataset.train=null", f"store={out / 'store'}", "llm=openai"]
    given += [f"llm.base_urls=[{server.url}]", "llm.model=x", f"questions={questions}", f"questions.folder={out / 'lots'}"]
    given += ["questions.min_passage_words=3", "questions.own=false", "questions.per_passage=1", "questions.test=0.2"]
    cfg = composed("annotate", *given)
    writing = open_writing(cfg, llm_configs(cfg)[0])
    assert writing is not None
    out.mkdir(exist_ok=True)
    writing.write(None, Prices(), out)
    return writing.collection()


def test_a_described_collection_has_its_misleading_texts_beside_it(folder: Path, tmp_path: Path, server: LLMServer) -> None:
    def answer(messages: Messages) -> str:
        word = re.findall(r"Passage: \w+ (\w+)", messages[-1]["content"])[-1]
        return f"{'something else' if 'false of it' in messages[-1]['content'] else 'a thing'} that has to do with {word}"

    server.answer = answer
    found, counts = write(folder, tmp_path / "out", server, "describe")
    assert counts["kept"] == counts["with_counterpart"] == 6 and len(server.seen) == 12
    place = Path(counts["folder"])
    rows = [json.loads(line) for line in (place / "misleading.jsonl").read_text().splitlines()]
    assert {row["doc_id"] for row in rows} == {f"d{n}" for n in range(1, 7)}
    assert all(row["text"].startswith("something else that has to do with") for row in rows)
    assert all(query.text.startswith("a thing that has to do with") for query in found.queries.values())
    assert misleading_of(found) == {row["doc_id"]: [row["text"]] for row in rows}
    write(folder, tmp_path / "out", server, "describe")
    assert len(server.seen) == 12
    with pytest.raises(UserError, match=r"training.misleading: mini:train has no misleading.jsonl, which annotate.py"):
        misleading_of(open_collection("mini:train"))


def test_hard_negatives_join_the_corpus_and_the_candidates(folder: Path, tmp_path: Path, server: LLMServer) -> None:
    def answer(messages: Messages) -> str:
        asked_for = re.findall(r"Question: (.*)", messages[-1]["content"])
        return f"{asked_for[0]} Nobody knows, though many have asked it." if asked_for else question(messages)

    def question(messages: Messages) -> str:
        passage = re.findall(r"Passage: (.*)", messages[-1]["content"])[-1]
        return f"Why would one say that {passage.rstrip('.')}?"

    server.answer = answer
    found, counts = write(folder, tmp_path / "out", server, "hard")
    assert counts["kept"] == counts["with_counterpart"] == 6
    assert len(found.corpus) == 12 and list(found.corpus.ids())[:6] == [f"d{n}" for n in range(1, 7)]
    for query_id, query in found.queries.items():
        (source,) = found.positives(query_id)
        assert found.candidates[query_id] == [source, f"{query_id}-hard"]
        assert found.corpus.text(found.corpus.row(f"{query_id}-hard")).startswith(query.text)
    assert not (Path(counts["folder"]) / "misleading.jsonl").exists()
    assert len(open_collection(f"local:{folder}:test").corpus) == 6  # the corpus itself is as it was


def test_the_term_is_the_softmax_of_a_description_among_misleading_ones() -> None:
    own, others = torch.tensor([1.0, 2.0, 7.0], requires_grad=True), torch.tensor([0.0, 3.0, 50.0], requires_grad=True)
    of, weights = torch.tensor([0, 0, 1]), torch.tensor([1.0, 0.5, 2.0])
    first, second = math.log(math.e + 1 + math.e**3) - 1, math.log(math.e**2 + math.e**50) - 2
    loss = misleading(own, others, of, weights)
    assert loss.item() == pytest.approx((first + 0.5 * second) / 3.5, rel=1e-5)
    loss.backward()
    total = math.e + 1 + math.e**3
    assert own.grad is not None and others.grad is not None
    assert own.grad.tolist() == pytest.approx([(math.e / total - 1) / 3.5, -0.5 / 3.5, 0.0], abs=1e-6)
    assert others.grad.tolist() == pytest.approx([1 / total / 3.5, math.e**3 / total / 3.5, 0.5 / 3.5], abs=1e-6)
    assert misleading(own, others[:0], of[:0], weights).item() == 0


def test_a_step_adds_the_term_for_the_positives_of_the_batch(folder: Path, tiny: list[str]) -> None:
    toy = open_collection(f"local:{folder}:test")
    torch.manual_seed(0)
    encoder = BiEncoder(tiny[0].partition("=")[2], query_length=32, passage_length=32, dropout=0.0)
    stage = Stage("human", [Example(f"q{i}", (f"d{i}",), ("d4", "d5"), "human") for i in (1, 2, 3)], 1, "all")
    false = {"d1": ["bees pump", "the sea"], "d3": ["iron"], "d5": ["of no query"]}
    further = further_texts(toy, {}, false, encoder)
    logged: dict[str, float] = {}
    steps = []
    for texts in (None, further):
        module = RetrieverModule(
            encoder, contrastive, partial(torch.optim.SGD, lr=1.0), 0.0, "human", terms=FurtherTerms(0, 0.1)
        )
        module.log = lambda name, value, **__: logged.update({name: float(value.detach())})  # type: ignore[method-assign,assignment]
        tokens = encoder.query_tokens(toy), toy.query_rows, encoder.passage_tokens(toy), toy.corpus
        (batch,) = BatchStream(stage, *tokens, 3, 3, 0, further=texts)
        steps.append(module.training_step(batch, 0).item())
    with torch.no_grad():
        by_text = {t: encoder([further.tokens[n]], role="query") for n, t in enumerate(sum(false.values(), []))}
        rows = {d: encoder([encoder.passage_tokens(toy)[toy.corpus.row(d)]], role="passage") for d in ("d1", "d2", "d3")}
        right = 0.0
        for query_id, doc_id in (("q1", "d1"), ("q2", "d2"), ("q3", "d3")):
            own = encoder([encoder.query_tokens(toy)[toy.query_rows[query_id]]], role="query")
            texts_of = [own, *(by_text[t] for t in false.get(doc_id, []))]
            scores = torch.cat([encoder.scale * encoder.similarity(t, rows[doc_id])[0] for t in texts_of])
            right -= float(scores.log_softmax(dim=0)[0]) / 3
    assert logged["human/misleading"] == pytest.approx(0.1 * right, rel=1e-3) and right > 0.1
    assert steps[1] - steps[0] == pytest.approx(0.1 * right, rel=1e-3)


def test_requests_name_what_they_ask_for() -> None:
    (valid, false) = next(DESCRIBE.chain(HEART))
    assert (valid.stage, false.stage) == DESCRIBE.stages and valid.template_hash != false.template_hash
    (first,) = next(HARD.chain(HEART))
    assert isinstance(first.request, Request) and len(set(HARD.prompts())) == 2
