"""Questions with an image: what a server is sent, what tells two calls apart, and what is refused before the first."""

import base64
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from annotate_runs import QUIET
from conftest import write_jsonl
from llm_server import LLMServer, serve
from scripted import POOL, Scripted, run

from uar.annotation.annotate_run import annotate
from uar.annotation.annotators import Annotator, Ensemble, Likelihood, Pointwise, QAMetric, RelSel, Setwise, UtilSel
from uar.collections import open_collection
from uar.collections.images import Image
from uar.errors import DataError, EngineError, UserError
from uar.evaluate import evaluate
from uar.evaluation.rag.passage_selection import Selector
from uar.evaluation.rag.query_writing import Missing, Verifier
from uar.evaluation.rag.reader import Asking, Reader
from uar.expansion.query_texts import QueryWriter
from uar.launch.entry import composed
from uar.llm.call import Question
from uar.llm.models import LLM
from uar.llm.models.openai_bodies import body_of, without_base64
from uar.llm.models.tokens import chat_ids
from uar.llm.pictured import Pictured, images_of
from uar.llm.pooled import question_of
from uar.llm.prompts import load_chat
from uar.llm.record import Choose, Generate, Reply
from uar.llm.store.store import Store

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(255, -1, -1))
WEBP = b"RIFF\x00\x01\x00\x00WEBPVP8 " + bytes(64)
GIF = b"GIF89a" + bytes(64)
WEB = "https://pictures.example/heart.png"
MORE = {"q1": "images/heart.png", "q2": WEB}  # q3 has none


def write_queries(folder: Path, images: dict[str, str]) -> None:
    texts = {"q1": "what pumps blood", "q2": "what do bees make", "q3": "where does the danube end"}
    rows = [{"_id": q, "text": text} | ({"image": images[q]} if q in images else {}) for q, text in texts.items()]
    write_jsonl(folder / "queries.jsonl", rows)


@pytest.fixture
def pictured(folder: Path) -> Path:
    """The toy folder, with a file as the image of one question and a URL as that of another."""
    (folder / "images").mkdir()
    (folder / "images" / "heart.png").write_bytes(PNG)
    write_queries(folder, MORE)
    return folder


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with serve() as running:
        running.answer = lambda messages: "My selection:[[1]]"
        running.choose = lambda messages: {"3": -0.1, "0": -3.0, "1": -4.0, "2": -4.0}
        yield running


Annotate = Callable[..., dict[str, Any]]


@pytest.fixture
def asked(pictured: Path, server: LLMServer, tmp_path: Path) -> Annotate:
    """Annotate the folder with the server, into `run`."""

    def annotated(*options: str) -> dict[str, Any]:
        given = ["dataset=local", f"dataset.path={pictured}", "candidates.depth=2", f"store={tmp_path / 'store'}", QUIET]
        if not any(option.startswith("llm=") for option in options):
            given += ["llm=openai", f"llm.base_urls=[{server.url}]", "llm.model=sees", "llm.backoff=0.01"]
        return annotate(composed("annotate", *given, *options), tmp_path / "run")

    return annotated


def parts(body: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The turns of a body whose content is a list of parts."""
    return [turn["content"] for turn in body["messages"] if isinstance(turn["content"], list)]


def sent(server: LLMServer, text: str) -> list[dict[str, Any]]:
    """Bodies about the question of that text."""
    return [body for _, _, body in server.seen if text in json.dumps(body)]


def everything(folder: Path) -> str:
    """All that stands in a folder, Parquet unpacked."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    packed = [str(pq.read_table(p).to_pylist()) for p in files if p.suffix == ".parquet"]
    return "\n".join(packed + [p.read_text(encoding="utf-8", errors="replace") for p in files])


@pytest.mark.parametrize("options", [["annotator=relsel"], ["annotator=pointwise", "annotator.calibration_queries=0"]])
def test_the_image_arrives_byte_for_byte_with_the_turn_of_the_question(
    asked: Annotate, server: LLMServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, options: list[str]
) -> None:
    caplog.set_level("INFO")
    asked(*options)
    for text, url in (("what pumps blood", None), ("what do bees make", WEB)):
        for body in sent(server, text):
            ((image, said),) = parts(body)
            assert image["type"] == "image_url" and said["type"] == "text" and text in said["text"]
            found = image["image_url"]["url"]
            if url is None:
                kind, _, content = found.partition(";base64,")
                assert kind == "data:image/png" and base64.b64decode(content, validate=True) == PNG
            else:
                assert found == url
    assert sent(server, "danube") and not any(parts(body) for body in sent(server, "danube"))
    assert "2 of 3 questions have an image" in caplog.text
    written = everything(tmp_path / "run") + everything(tmp_path / "store") + caplog.text
    assert base64.b64encode(PNG).decode()[20:60] not in written and "base64," not in written


def test_a_changed_image_is_asked_again_and_one_under_another_name_is_not(
    asked: Annotate, server: LLMServer, pictured: Path
) -> None:
    first = asked("annotator=relsel")
    assert (first["calls"], len(server.seen)) == (3, 3)
    assert asked("annotator=relsel")["calls"] == 0
    before = open_collection(f"local:{pictured}:train").hash
    (pictured / "images" / "heart.png").rename(pictured / "renamed.bin")
    write_queries(pictured, MORE | {"q1": "renamed.bin"})
    assert open_collection(f"local:{pictured}:train").hash == before
    assert asked("annotator=relsel")["calls"] == 0
    (pictured / "renamed.bin").write_bytes(JPEG)
    assert open_collection(f"local:{pictured}:train").hash != before
    assert asked("annotator=relsel")["calls"] == 1 and "data:image/jpeg;base64," in json.dumps(server.seen[-1][2])
    write_queries(pictured, {"q1": "renamed.bin", "q2": WEB + "?v=2"})
    assert asked("annotator=relsel")["calls"] == 1 and parts(server.seen[-1][2])[0][0]["image_url"]["url"] == WEB + "?v=2"
    write_queries(pictured, {"q1": "renamed.bin"})
    assert asked("annotator=relsel")["calls"] == 1 and len(server.seen) == 6


def test_a_dry_run_says_that_images_are_not_counted_or_counts_them(
    asked: Annotate, server: LLMServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = asked("annotator=relsel", "dry_run=true")
    assert "The tokens of the 2 images that are shown are not counted; price.image_tokens=N" in caplog.text
    shown = [json.loads(line) for line in (tmp_path / "run" / "prompts.jsonl").read_text().splitlines()]
    assert [turn["image"] for row in shown for turn in row["messages"] if "image" in turn] == list(MORE.values())
    caplog.clear()
    counted = asked("annotator=relsel", "dry_run=true", "price.image_tokens=1000", "price.input=1")
    assert counted["tokens_in"] - plain["tokens_in"] == 2_000 and "not counted" not in caplog.text
    assert (plain["images"], plain["image_tokens"], counted["image_tokens"]) == (2, None, 1000)
    with pytest.raises(UserError, match="price.limit=1.0: how many tokens an image counts is not known; give price.image"):
        asked("annotator=relsel", "price.input=1", "price.limit=1.0")
    with pytest.raises(UserError, match=r"price.limit=0.001 USD: 0 are spent, and the next call may cost"):
        asked("annotator=relsel", "price.input=1", "price.limit=0.001", "price.image_tokens=1000")
    assert server.seen == []


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("images/none.png", None, "no such file in "),
        ("notes.png", b"<html>", "it begins like no image that servers take; allowed: PNG, JPEG, WebP, GIF"),
        ("images", None, "it cannot be read .Is a directory."),
        ("big.png", PNG + bytes(20 * 2**20), "it has 20.0 MiB, at most 20 are taken"),
        ("../heart.png", None, "it leads out of "),
        ("ftp://pictures.example/a.png", None, "a path below the collection's folder or an http.s. URL is needed"),
        ("data:image/png;base64,iVBOR", None, "a path below the collection's folder"),
        ("a\0b.png", None, "no such file in "),
    ],
)
def test_an_image_that_cannot_be_shown_is_refused_with_its_question(
    pictured: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (pictured / name).write_bytes(content)
    write_queries(pictured, {"q2": name})
    with pytest.raises(DataError, match=f"queries.jsonl: query 'q2': image .*: {told}"):
        open_collection(f"local:{pictured}:train")


def test_images_of_other_splits_are_not_looked_at(pictured: Path) -> None:
    (pictured / "qrels" / "one.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td3\t1\n")
    write_queries(pictured, {"q1": "none.png"})
    assert list(open_collection(f"local:{pictured}:one").queries) == ["q3"]


def test_who_takes_no_image_refuses_with_one_line(asked: Annotate, server: LLMServer, tmp_path: Path, pictured: Path) -> None:
    with pytest.raises(UserError, match="query 'q1' has an image, which Likelihood shows to no LLM; use a list-wise or point"):
        asked("annotator=likelihood")
    with pytest.raises(UserError, match="query 'q1' has an image, and llm=transformers takes text alone; use llm=openai"):
        asked("annotator=relsel", "llm=smollm2")
    with pytest.raises(UserError, match="query 'q1' has an image, and llm=vllm takes text alone; use llm=openai"):
        asked("annotator=relsel", "llm=vllm", "llm.model=x")
    question = Question("q1", "what do bees make", POOL, image=Image("images/heart.png", pictured))
    with pytest.raises(UserError, match="query 'q1' has an image, and llm=scripted takes text alone"):
        run(tmp_path / "own", RelSel(template="relsel"), Scripted(lambda request: ""), [question])
    assert server.seen == []


def test_labels_from_elsewhere_ask_nothing_and_need_no_image(asked: Annotate, tmp_path: Path) -> None:
    (tmp_path / "labels.qrels").write_text("q1 0 d1 1\nq2 0 d2 1\n")
    assert asked("annotator=import", f"annotator.path={tmp_path / 'labels.qrels'}")["queries"] == 2


class Seeing(Scripted):
    takes_images = True


def shown(folder: Path, annotator: Annotator, answer: str | Callable[..., Any] = "My selection:[[1]]") -> list[Any]:
    """Requests of an annotator about a question with an image."""
    engine = Seeing(answer if callable(answer) else lambda request: answer)
    (folder / "a.gif").write_bytes(GIF)
    run(
        folder / "store",
        annotator,
        engine,
        [Question("q1", "what do bees make", POOL, ("honey",), image=Image("a.gif", folder))],
    )
    return engine.asked


@pytest.mark.parametrize("layout", ["paper", "shared_prefix"])
def test_list_wise_calls_show_the_image_once_where_the_question_comes_first(tmp_path: Path, layout: str) -> None:
    annotator = UtilSel(template="utilsel", layout=layout)
    for request in shown(tmp_path, annotator):
        places = [n for n, (_, text) in enumerate(request.messages) if isinstance(text, Pictured)]
        asking = [n for n, (role, text) in enumerate(request.messages) if role == "user" and "what do bees make" in text]
        assert places == asking[:1]


def test_a_window_of_passages_shows_it_and_members_of_an_ensemble_do(tmp_path: Path) -> None:
    one, *_ = shown(tmp_path, Setwise(template="setwise", reasoning=True), "A")
    assert isinstance(one.messages[-1][1], Pictured)
    assert Ensemble(member=RelSel(template="relsel"), shuffles=2).shows_images
    assert not Ensemble(member=Likelihood(template="likelihood_question"), models=2).shows_images


@pytest.mark.parametrize(
    ("asker", "reply"),
    [
        (QueryWriter(template="rewrite_query"), "what bees make"),
        (Verifier(template="rag_verify"), "supported"),
        (Missing(template="rag_missing_question"), "no"),
        (Selector(template="rag_select"), "My selection:[[1]]"),
        (QAMetric(template="qa_metric"), "honey"),
        (Pointwise(template="pointwise", definitions="write", reasoning=True), "3"),
    ],
)
def test_whoever_shows_the_question_to_an_llm_shows_its_image(tmp_path: Path, asker: Any, reply: str) -> None:
    requests = shown(tmp_path, asker, reply)
    assert requests and all([image.name for image in images_of(r.messages)] == ["a.gif"] for r in requests)


def test_a_reader_is_shown_the_image_of_a_collection_s_question(pictured: Path, tmp_path: Path) -> None:
    toy, engine = open_collection(f"local:{pictured}:train"), Seeing(lambda request: "heart")
    store = Store(tmp_path / "store")
    Asking(toy, LLM("scripted@1", engine), store).answers(Reader(template="rag_short"), {"q1": POOL, "q3": {}})
    store.close()
    names = [[image.name for image in images_of(r.messages)] for r in engine.asked]
    assert sorted(names) == [[], ["images/heart.png"]]


def test_judges_of_answers_are_shown_the_image_wherever_they_are_shown_the_question(
    pictured: Path, tmp_path: Path, server: LLMServer
) -> None:
    forms = {"one statement a line": "- It is it.", "one fact a line": "- It is it.", "it states a part": "1: support"}
    forms |= {"label, such as": "1: vital", "number and yes or no": "1: yes", "yes or no": "yes"}
    server.answer = lambda messages: next((r for form, r in forms.items() if form in str(messages[-1])), "It is it [1].")
    measures = ["Faithfulness", "ContextPrecision", "CitationRecall", "NuggetsAll"]
    given = ["retriever=bm25", f"collections=[local:{pictured}:train]", "rag=cited", "llm@rag.llm=openai", "logger=none"]
    given += ["rag.llm.model=sees", f"rag.llm.base_urls=[{server.url}]", f"rag.measures=[{','.join(measures)}]"]
    evaluate(composed("evaluate", *given, "rag.top_k=1", "measures=[RR@1]", f"store={tmp_path / 's'}"), tmp_path / "run")
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["rag"]["toy.train"]["judged"]
    assert {m: of["questions"] for m, of in found.items()} == dict.fromkeys(measures, 3)
    bodies = sent(server, "what pumps blood")
    assert len(bodies) == 7 and all(str(parts(body)).count("data:image/png") == 1 for body in bodies)


def test_examples_of_the_same_words_are_shown_with_their_own_images(pictured: Path, tmp_path: Path) -> None:
    (pictured / "images" / "copy.png").write_bytes(PNG)
    (pictured / "images" / "other.png").write_bytes(GIF)
    images = {"q1": "images/heart.png", "q2": "images/other.png", "q3": "images/copy.png"}
    write_jsonl(pictured / "queries.jsonl", [{"_id": q, "text": "what is it", "image": i} for q, i in images.items()])
    shows = Pointwise(template="pointwise", examples="random", examples_from=f"local:{pictured}:train", calibration_queries=0)
    toy = open_collection(f"local:{pictured}:train")
    engine = Seeing(lambda request: Reply.of_choices({"0": -2.0, "1": -2.0, "2": -2.0, "3": -0.5}))
    run(tmp_path / "store", shows, engine, [question_of(toy, "q1", ["d1"])])
    ((*examples, asked),) = [images_of(request.messages) for request in engine.asked]
    assert {image.name for image in examples} == {"images/other.png"} and asked.name == "images/heart.png"


def test_a_prompt_without_the_question_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("variables: [passage]\nturns:\n- {role: user, content: 'Grade: {{ passage }}'}\n")
    prompt = load_chat(str(path), frozenset({"query", "passage"}))
    with pytest.raises(UserError, match="prompt own: no user's turn has {{ query }}, where the question's image is shown"):
        prompt.render(image=Image("a.gif", tmp_path), passage="x")


def test_a_turn_that_is_joined_with_its_neighbour_keeps_the_image(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    turns = "[{role: user, content: 'Look.'}, {role: user, content: '{{ query }}?'}, {role: user, content: 'Say.'}]"
    path.write_text(f"variables: [query]\nturns: {turns}\n")
    image = Image("a.gif", tmp_path)
    ((role, text),) = load_chat(str(path), frozenset({"query"})).render(image=image, query="What is it")
    assert isinstance(text, Pictured) and (role, str(text), text.image) == ("user", "Look.\nWhat is it?\nSay.", image)


def test_calls_are_told_apart_by_what_is_shown(tmp_path: Path) -> None:
    for name, content in (("a.png", PNG), ("b.png", PNG), ("c.webp", WEBP)):
        (tmp_path / name).write_bytes(content)
    a, b, c = (Pictured("Hi.", Image(name, tmp_path)) for name in ("a.png", "b.png", "c.webp"))
    for make in (lambda text: Generate((("user", text),), 5), lambda text: Choose((("user", text),), ("0", "1"))):
        keys = {text: make(text).keys("m") + make(text).earlier_keys("m") for text in ("Hi.", a, b, c)}
        assert keys[a] == keys[b] and not (set(keys["Hi."]) & set(keys[a])) and not (set(keys[a]) & set(keys[c]))
    assert a != "Hi." and a != c and pickle.loads(pickle.dumps(a)) == a
    assert str(body_of(Generate((("user", c),), 5), "m", False)).count("data:image/webp;base64,") == 1
    (tmp_path / "c.webp").write_bytes(GIF)
    with pytest.raises(EngineError, match="image c.webp: the file changed while the run went on"):
        body_of(Generate((("user", c),), 5), "m", False)
    with pytest.raises(EngineError, match="is asked in text alone, and a question has an image"):
        chat_ids(type("Tokenizer", (), {"chat_template": "x", "name_or_path": "tiny"}), Generate((("user", a),), 5))


def test_what_a_server_repeats_of_an_image_is_left_out(asked: Annotate, server: LLMServer, tmp_path: Path) -> None:
    def bad(number: int, body: dict[str, Any]) -> str:
        return "200 " + json.dumps({"error": {"code": 400, "message": f"bad image: {json.dumps(parts(body))}"}})

    server.fault = bad
    with pytest.raises(UserError, match="failed"):
        asked("annotator=relsel", "max_failure_rate=1")
    failures = (tmp_path / "run" / "failures.jsonl").read_text()
    assert "[base64]" in failures and "iVBOR" not in everything(tmp_path)
    assert without_base64("a/b/c: 400, no such model") == "a/b/c: 400, no such model"
