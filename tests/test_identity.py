"""What tells records apart: weights and files beside them, commits, limits, patterns; and what earlier versions kept."""

import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import transformers
from llm_server import LLMServer
from openai_clients import Connect
from scripted import BEES, Answer, Scripted
from tiny_models import tiny_causal, tiny_llama

from uar.llm.call import Call
from uar.llm.chains import Chains
from uar.llm.models import LLM, identity_of
from uar.llm.models.transformers import Transformers
from uar.llm.record import Generate, Outcome, Record, Reply, Request, Score
from uar.llm.store.answers import answer
from uar.llm.store.store import Store
from uar.machine.model_files import identity
from uar.storage.files import digest

HI = Generate((("user", "Hi."),), 8, pattern="a+")
FREE = Generate((("user", "Hi."),), 8)
COMMITS = "0" * 40, "1" * 40
LOCAL = {"_target_": "uar.llm.models.transformers.Transformers", "revision": None}


def as_before(request: Request, model: str) -> str:
    """The key of earlier versions."""
    if isinstance(request, Score):
        return digest("score", model, request.prefix, request.target)
    extras = {"pattern": request.pattern} if request.pattern else {}
    return digest("generate", model, request.messages, request.max_tokens, 0.0, *([extras] if extras else []))


def keep(folder: Path, key: str, engine: str, model: str, output: str = "kept", **usage: object) -> None:
    record = Record(key, "c", "q", (), "s", "t", "h", "paper", model, engine, output, **({"outcome": "ok"} | usage))
    store = Store(folder)
    store.append(record)
    store.close()


class Asks:
    """An asker of one request."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def chain(self, question: object):
        replies = yield [Call("s", "t", "h", (), self.request, lambda reply: reply.outcome)]
        return replies[0].output


class Holding(Scripted):
    """Holds replies to patterns where `holding`."""

    def __init__(self, reply: Answer, holding: bool = False, commit: str | None = None, early: bool = False) -> None:
        super().__init__(reply)
        self.holding, self.commit, self.ends_early = holding, commit, early

    def holds(self, request: Generate) -> bool:
        return self.holding


def asked(folder: Path, request: Request, model: str = "m", **engine: object) -> tuple[str | None, int]:
    """The reply, and how many calls it took."""
    scripted = Holding(lambda r: Reply("asked", tokens_out=2), **engine)
    return _run(folder, request, LLM(model, scripted)), len(scripted.asked)


def _run(folder: Path, request: Request, llm: LLM) -> str | None:
    store = Store(folder)
    try:
        return dict(Chains(Asks(request), store, "c", [llm], 1.0).run([BEES])).get(BEES.id)
    finally:
        store.close()


def test_names_of_folders_are_what_they_were_and_say_more_where_more_files_count(tmp_path: Path) -> None:
    folder = Path(tiny_llama(tmp_path / "model"))
    for extra in ("chat_template.jinja", "tokenizer.model", "merges.txt", "vocab.txt"):
        (folder / extra).unlink(missing_ok=True)
    (folder / "README.md").write_text("A model.")
    plain = identity(str(folder))
    assert identity_of(LOCAL | {"model": str(folder)}) == plain and plain.startswith("model@")
    names = {plain}
    for name, content in (("chat_template.jinja", "{{ a }}"), ("chat_template.jinja", "{{ b }}"), ("tokenizer.model", "c")):
        (folder / name).write_text(content)
        names.add(identity_of(LOCAL | {"model": str(folder)}))
    assert len(names) == 4 and all(name.startswith(plain) for name in names)


def test_weights_in_the_format_of_torch_tell_models_apart_where_no_others_are(tmp_path: Path) -> None:
    folder = Path(tiny_llama(tmp_path / "model"))
    plain = identity(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"a copy")
    assert identity(str(folder)) == plain
    (folder / "model.safetensors").unlink()
    one = identity(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"others")
    assert len({plain, one, identity(str(folder))}) == 3


@pytest.mark.parametrize("request_", [FREE, HI, Score("a", " b")])
def test_another_name_of_the_folder_is_the_same_model(tmp_path: Path, request_: Request) -> None:
    folder = Path(tiny_llama(tmp_path / "model"))
    shutil.copytree(folder, tmp_path / "renamed")
    first, second = (identity_of(LOCAL | {"model": str(place)}) for place in (folder, tmp_path / "renamed"))
    assert first != second
    assert asked(tmp_path / "store", request_, first) == ("asked", 1)
    assert asked(tmp_path / "store", request_, second) == ("asked", 0)
    assert asked(tmp_path / "store", request_, second.replace("@", "@0")[:-1])[1] == 1


@pytest.mark.parametrize("model", ["m", "org/m@main", "model@0123456789ab", "a@b~c", "m@2+01234567"])
@pytest.mark.parametrize("request_", [FREE, Score("a", " b")])
def test_what_earlier_versions_kept_is_asked_never_again(tmp_path: Path, model: str, request_: Request) -> None:
    keep(tmp_path, as_before(request_, model), "vllm", model)
    assert asked(tmp_path, request_, model) == ("kept", 0)
    if "0123456789ab" in model:  # from before files beside the weights were a part of the name
        assert asked(tmp_path, request_, f"{model}~89abcdef") == ("kept", 0)
    assert asked(tmp_path, request_, "another") == ("asked", 1)


def test_more_room_asks_only_replies_again_that_were_cut_off(tmp_path: Path) -> None:
    outcomes = {"a": Outcome.OK, "b": Outcome.TRUNCATED, "c": Outcome.REFUSED, "d": Outcome.TRUNCATED}

    def reply(request: Request) -> Reply:
        letter = request.messages[0][1]
        needed = {"a": 5, "b": 20, "c": 3, "d": 40}[letter]
        whole = needed <= request.limit
        return Reply(
            letter, Outcome.OK if whole and letter != "c" else outcomes[letter], tokens_out=min(needed, request.limit)
        )

    calls = []
    for limit, thinking in ((8, 0), (16, 16), (8, 0), (64, 0), (16, 16)):
        engine = Scripted(reply)
        for letter in outcomes:
            request = Generate((("user", letter),), limit, reasoning=True, reasoning_tokens=thinking)
            _run(tmp_path, request, LLM("m", engine))
        calls.append("".join(request.messages[0][1] for request in engine.asked))
    assert calls == ["abcd", "bd", "", "d", ""]


def test_a_reply_that_is_longer_than_the_room_is_asked_again(tmp_path: Path) -> None:
    engine = Scripted(lambda request: Reply("long", tokens_out=min(30, request.max_tokens)))
    for limit, calls in ((64, 1), (30, 1), (29, 2), (64, 2)):
        _run(tmp_path, Generate((("user", "a"),), limit), LLM("m", engine))
        assert len(engine.asked) == calls


def test_engines_that_hold_replies_to_a_pattern_share_none_with_others(tmp_path: Path) -> None:
    assert asked(tmp_path, HI, holding=False) == ("asked", 1)
    assert asked(tmp_path, HI, holding=True) == ("asked", 1)
    assert asked(tmp_path, HI, holding=False)[1] == asked(tmp_path, HI, holding=True)[1] == 0
    assert asked(tmp_path, FREE, holding=True)[1] == 0  # what was not held is the reply to a request without pattern
    assert _run(tmp_path, HI, LLM("m")) == "asked"  # what training reads


@pytest.mark.parametrize(("engine", "free", "held"), [("transformers", 0, 1), ("vllm", 1, 0), ("openai", 0, 0)])
def test_of_earlier_replies_the_engine_tells_whether_they_were_held(tmp_path: Path, engine: str, free: int, held: int) -> None:
    for holding, calls in ((False, free), (True, held)):
        keep(tmp_path / str(holding), as_before(HI, "m"), engine, "m")
        assert asked(tmp_path / str(holding), HI, holding=holding)[1] == calls
    assert _run(tmp_path / "True", HI, LLM("m")) is not None


def test_another_commit_is_another_model_and_none_is_any(tmp_path: Path) -> None:
    assert asked(tmp_path, FREE, "o/m@main", commit=COMMITS[0])[1] == 1
    assert asked(tmp_path, FREE, "o/m@main", commit=COMMITS[1])[1] == 1
    assert [asked(tmp_path, FREE, "o/m@main", commit=commit)[1] for commit in (*COMMITS, None)] == [0, 0, 0]
    kept = [answer(Store(tmp_path), FREE, "o/m@main", lambda r: r.outcome, commit=commit) for commit in COMMITS]
    assert [record.model for record in kept if record] == [f"o/m@main={commit}" for commit in COMMITS]


def test_the_commit_of_a_model_of_the_hub_is_the_one_that_was_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "models--owner--name"
    tiny_causal(place / "snapshots" / COMMITS[1], transformers.LlamaConfig)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMITS[1])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    engine = Transformers("owner/name", dtype="fp32")
    assert engine.commit == COMMITS[1] and engine.serves() == {"commit": COMMITS[1]}
    assert LLM("owner/name@main", engine).shown == f"owner/name@main={COMMITS[1]}"


def test_what_a_server_says_that_it_serves_is_told(server: LLMServer, client: Connect) -> None:
    entry = {"id": "scripted", "root": "org/real", "max_model_len": 4096, "permission": [{}], "created": 1}
    server.reports["/v1/models"] = {"data": [{"id": "other"}, entry]}
    assert client().serves() == {server.url: {"id": "scripted", "root": "org/real", "max_model_len": 4096}}
    server.reports["/v1/models"] = {"models": []}
    assert client().serves() == {}


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.TRUNCATED])
def test_a_reply_that_nothing_ended_early_answers_where_one_may_end_and_not_the_other_way_round(
    tmp_path: Path, outcome: Outcome
) -> None:
    until = replace(FREE, until=".*\\?\n")
    keep(tmp_path / "whole", FREE.key_of("m", outcome), "transformers", "m")
    assert asked(tmp_path / "whole", until, early=True) == ("kept", 0)
    assert asked(tmp_path / "whole", replace(until, until="another"), early=True) == ("kept", 0)
    keep(tmp_path / "ended", until.key_of("m", outcome), "transformers", "m")
    assert asked(tmp_path / "ended", until, early=True) == ("kept", 0)
    assert asked(tmp_path / "ended", replace(until, until="another"), early=True) == ("asked", 1)
    assert asked(tmp_path / "ended", FREE, early=True) == ("asked", 1)


def test_an_engine_that_ends_no_reply_early_keeps_it_as_a_whole_one(tmp_path: Path) -> None:
    assert asked(tmp_path, replace(FREE, until="a"), early=False) == ("asked", 1)
    assert asked(tmp_path, FREE) == ("asked", 0)


def test_a_reply_from_before_replies_could_end_early_is_found(tmp_path: Path) -> None:
    keep(tmp_path, as_before(FREE, "m"), "vllm", "m")
    assert asked(tmp_path, replace(FREE, until="a"), early=True) == ("kept", 0)


@pytest.mark.parametrize("request_", [FREE, HI, replace(FREE, until="a"), replace(FREE, reasoning=True, reasoning_tokens=4)])
@pytest.mark.parametrize(("outcome", "early"), [(Outcome.OK, True), (Outcome.TRUNCATED, True), (Outcome.TRUNCATED, False)])
def test_a_reply_that_was_cut_off_is_one_in_the_store_too(
    tmp_path: Path, request_: Generate, outcome: Outcome, early: bool
) -> None:
    class Reads(Asks):
        def chain(self, question: object):
            replies = yield [Call("s", "t", "h", (), self.request, lambda reply: Outcome.OK)]  # whatever can be read counts
            return replies[0].outcome

    found = []
    for _ in range(2):
        engine = Holding(lambda request: Reply("a line\nand a ha", outcome, 3, request_.limit), early=early)
        store = Store(tmp_path)
        chains = Chains(Reads(request_), store, "c", [LLM("m", engine)])  # type: ignore[arg-type]
        found += [result for _, result in chains.run([BEES])]
        store.close()
    assert found == [outcome] * 2 and not engine.asked
