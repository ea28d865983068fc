"""List-wise annotators over a scripted engine: stages, layouts, templates, patterns and thinking models."""

import re
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path

import pytest
from scripted import BEES, POOL, Scripted, graded, kept, many, reader, replies, run, shown_passages

from uar.annotation.annotators import (
    Annotator,
    Likelihood,
    Pointwise,
    QAMetric,
    Question,
    RelSel,
    UtilRank,
    UtilSel,
)
from uar.errors import DataError, UserError
from uar.llm.costs.ledger import Prices, ledger
from uar.llm.prompts.template import packaged
from uar.llm.record import Outcome, Reply

TEN = Question("ten", "which is best", {f"p{n}": f"Passage number {n}." for n in range(1, 11)})
RELSEL = RelSel(template="relsel")
UTILSEL = UtilSel(template="utilsel")
UTILRANK = UtilRank(template="utilrank")
RANKED = UtilSel(template="utilsel", rank=True)
CHAIN = {"relsel": "My selection:[[2],[1],[4]]", "pseudo_answer": "They make honey."}
UTILITY = dict(zip(POOL.values(), (1.5, 0.5, 0.0, 2.0), strict=True))


def shared(annotator: type[Annotator], template: str, **options: object) -> Annotator:
    return annotator(template=template, layout="shared_prefix", **options)


def test_relsel_alone_labels_what_it_selects(tmp_path: Path) -> None:
    engine = Scripted(replies(relsel="My selection:[[3],[1]]"))
    judged, _ = run(tmp_path, RELSEL, engine)
    assert graded(judged) == [("d3", 1, 1), ("d1", 1, 1), ("d2", 0, 0), ("d4", 0, 0)]
    assert engine.stages == ["relsel"]
    (record,) = kept(tmp_path, "relsel")
    assert (record.doc_ids, record.template, record.layout) == (("d1", "d2", "d3", "d4"), "relsel", "paper")


def test_relsel_is_the_first_stage_of_the_chains(tmp_path: Path) -> None:
    run(tmp_path, RELSEL, Scripted(replies(**CHAIN)))
    for annotator, last in ((UTILSEL, "utilsel"), (UTILRANK, "utilrank")):
        engine = Scripted(replies(**CHAIN, utilsel="My selection:[]", utilrank="[1] > [2] > [3]"))
        run(tmp_path, annotator, engine)
        assert engine.stages == (["pseudo_answer", "utilsel"] if last == "utilsel" else ["utilrank"])


def test_the_best_share_of_the_ranking_is_positive_and_another_share_asks_nothing(tmp_path: Path) -> None:
    selected = "My selection:[[1],[2],[3],[4],[5],[6],[7],[8]]"
    engine = Scripted(replies(relsel=selected, pseudo_answer="The best.", utilrank="[5] > [3] > [8]"))
    judged, _ = run(tmp_path, UTILRANK, engine, [TEN])
    order = ["p5", "p3", "p8", "p1", "p2", "p4", "p6", "p7", "p9", "p10"]
    assert graded(judged, "ten") == [("p5", 1, 2), *((d, 0, 1) for d in order[1:8]), *((d, 0, 0) for d in order[8:])]
    assert engine.stages == ["relsel", "pseudo_answer", "utilrank"]
    for percent, positives in ((0, 1), (24.9, 1), (25, 2), (50, 3), (60, 3), (100, 3)):  # none that was not named
        again = Scripted(replies())
        judged, chains = run(tmp_path, UtilRank(template="utilrank", threshold=percent), again, [TEN])
        assert [j.doc_id for j in judged["ten"]] == order
        assert [j.doc_id for j in judged["ten"] if j.label] == order[:positives]
        assert (again.asked, chains.progress.total.kept) == ([], 3)


def test_partial_rankings_are_counted_in_the_ledger_kept_ones_too(tmp_path: Path) -> None:
    engine = Scripted(replies(**CHAIN, utilrank="[3] > … > [1]"))
    for kept_calls in (0, 3):
        judged, chains = run(tmp_path, UTILRANK, engine)
        assert graded(judged) == [("d4", 1, 2), ("d1", 0, 1), ("d2", 0, 1), ("d3", 0, 0)]
        spent = ledger(chains.progress, 1, 4, 1.0, ["scripted"], Prices())
        assert spent["calls_answered_by_store"] == kept_calls
        assert (spent["stages"]["utilrank"]["partial_rankings"], spent["stages"]["utilrank"]["passages_appended"]) == (1, 1)
        assert "partial_rankings" not in spent["stages"]["relsel"]
    _, chains = run(tmp_path / "whole", UTILRANK, Scripted(replies(**CHAIN, utilrank="[3] > [1] > [2]")))
    assert "partial_rankings" not in ledger(chains.progress, 1, 4, 1.0, ["scripted"], Prices())["stages"]["utilrank"]


def test_a_ranking_names_the_passages_that_relsel_kept(tmp_path: Path) -> None:
    judged, _ = run(tmp_path, UTILRANK, Scripted(replies(**CHAIN, utilrank="[3] > [1]")))
    assert graded(judged) == [("d4", 1, 2), ("d2", 0, 1), ("d1", 0, 1), ("d3", 0, 0)]


@pytest.mark.parametrize(
    ("selection", "positives"), [("My selection:[]", []), ("My selection:[[3]]", ["d3"])], ids=["none", "one"]
)
def test_less_than_two_relevant_passages_ask_no_ranking(tmp_path: Path, selection: str, positives: list[str]) -> None:
    engine = Scripted(replies(relsel=selection))
    judged, chains = run(tmp_path, UTILRANK, engine)
    assert engine.stages == ["relsel"]
    assert [j.doc_id for j in judged["q1"] if j.label] == positives
    assert [j.grade for j in judged["q1"]] == [2 * len(positives), 0, 0, 0]
    assert not chains.progress.failures


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("[1] > [4]", Outcome.OUT_OF_RANGE),
        ("[]", Outcome.UNPARSABLE),
        ("The first is best.", Outcome.UNPARSABLE),
        ("", Outcome.EMPTY),
        (Reply("[2] > [", Outcome.TRUNCATED), Outcome.TRUNCATED),
    ],
)
@pytest.mark.parametrize("annotator", [UTILRANK, RANKED], ids=["utilrank", "utilsel"])
def test_a_failed_ranking_gives_no_label(tmp_path: Path, annotator: Annotator, reply: str | Reply, outcome: Outcome) -> None:
    engine = Scripted(replies(**CHAIN, utilsel="My selection:[[1]]", utilrank=reply))
    judged, chains = run(tmp_path, annotator, engine)
    assert judged == {}
    assert [(f.stage, f.outcome) for f in chains.progress.failures] == [("utilrank", outcome)]


def test_selection_and_ranking_are_asked_together_and_the_ranking_orders(tmp_path: Path) -> None:
    engine = Scripted(replies(**CHAIN, utilsel="My selection:[[2],[3]]", utilrank="[3] > [1] > [2]"))
    judged, _ = run(tmp_path, RANKED, engine)
    assert graded(judged) == [("d4", 1, 2), ("d1", 1, 2), ("d2", 0, 1), ("d3", 0, 0)]
    assert engine.stages == ["relsel", "pseudo_answer", "utilsel", "utilrank"]
    assert engine.most == 2
    assert RANKED.stages == ("relsel", "pseudo_answer", "utilsel", "utilrank")


def test_a_ranking_beside_a_kept_selection_asks_the_ranking_alone(tmp_path: Path) -> None:
    answers = replies(**CHAIN, utilsel="My selection:[[2],[3]]", utilrank="[3] > [1] > [2]")
    run(tmp_path, UTILSEL, Scripted(answers))
    engine = Scripted(answers)
    run(tmp_path, RANKED, engine)
    assert engine.stages == ["utilrank"]
    again = Scripted(answers)
    run(tmp_path, UTILRANK, again)
    assert again.asked == []


def test_one_relevant_passage_is_selected_from_and_not_ranked(tmp_path: Path) -> None:
    engine = Scripted(replies(relsel="My selection:[[4]]", pseudo_answer="For years.", utilsel="My selection:[[1]]"))
    judged, _ = run(tmp_path, RANKED, engine)
    assert engine.stages == ["relsel", "pseudo_answer", "utilsel"]
    assert graded(judged)[0] == ("d4", 1, 2)


def test_an_empty_pool_asks_nothing_and_has_no_judgement(tmp_path: Path) -> None:
    engine = Scripted(replies())
    for annotator in (RELSEL, UTILSEL, UTILRANK):
        assert run(tmp_path, annotator, engine, [Question("none", "what is nothing", {})])[0] == {"none": []}
    assert engine.asked == []


@pytest.mark.parametrize("acknowledge", [True, False, None])
def test_a_shared_prefix_holds_all_passages_and_is_the_same_at_every_stage(tmp_path: Path, acknowledge: bool | None) -> None:
    engine = Scripted(replies(**CHAIN, utilsel="My selection:[[4],[1]]", utilrank="[4] > [2]"))
    annotator = UtilSel(template="utilsel", rank=True, layout="shared_prefix", acknowledge=acknowledge)
    judged, _ = run(tmp_path, annotator, engine)
    assert engine.stages == ["relsel", "pseudo_answer", "utilsel", "utilrank"]
    passages = [f"[{n}] {text}" for n, text in enumerate(POOL.values(), start=1)]
    turns = [[f"{role}\n{text}" for role, text in r.messages] for r in engine.asked]
    common = commonprefix(turns)
    text = commonprefix(["\n\n".join(chat) for chat in turns])
    assert BEES.text in text and all(passage in text for passage in passages)
    if acknowledge:
        assert {len(chat) - len(common) for chat in turns} == {1}
        assert common[2:] == [t for n, p in enumerate(passages, 1) for t in (f"user\n{p}", f"assistant\nNoted passage [{n}].")]
    else:
        assert all("Noted" not in part for chat in turns for part in chat)
        assert {len(chat) for chat in turns} == {3}
        assert all(chat[-1].startswith("user\n" + "\n".join(passages) + "\n") for chat in turns)
    for request in engine.asked:
        roles = [role for role, _ in request.messages]
        assert roles[0] == roles[-1] == "user" and all(a != b for a, b in pairwise(roles))
        assert shown_passages(request.messages) == dict(enumerate(POOL.values(), start=1))
    assert graded(judged) == [("d4", 1, 2), ("d1", 1, 2), ("d2", 0, 1), ("d3", 0, 0)]
    assert {r.layout for r in kept(tmp_path, *annotator.stages)} == {"shared_prefix"}


def test_later_stages_of_a_shared_prefix_consider_the_numbers_of_the_pool(tmp_path: Path) -> None:
    engine = Scripted(replies(**CHAIN, utilsel="My selection:[[4]]", utilrank="[4] > [2] > [1]"))
    judged, _ = run(tmp_path, shared(UtilSel, "utilsel", rank=True, acknowledge=True), engine)
    for request in engine.asked[1:]:
        assert "[1], [2], [4]" in request.messages[-1][1] and "[3]" not in request.messages[-1][1]
    assert graded(judged) == [("d4", 1, 2), ("d2", 0, 1), ("d1", 0, 1), ("d3", 0, 0)]
    records = {r.stage: r.doc_ids for r in kept(tmp_path, "relsel", "pseudo_answer", "utilsel", "utilrank")}
    assert records == {"relsel": tuple(POOL)} | dict.fromkeys(("pseudo_answer", "utilsel", "utilrank"), ("d1", "d2", "d4"))


@pytest.mark.parametrize(("stage", "reply"), [("utilsel", "My selection:[[1],[3]]"), ("utilrank", "[3] > [1]")])
def test_a_shown_passage_that_is_not_considered_is_out_of_range(tmp_path: Path, stage: str, reply: str) -> None:
    annotator = shared(*((UtilSel, "utilsel") if stage == "utilsel" else (UtilRank, "utilrank")))
    judged, chains = run(tmp_path, annotator, Scripted(replies(**CHAIN, **{stage: reply})))
    assert judged == {}
    assert [(f.stage, f.outcome) for f in chains.progress.failures] == [(stage, Outcome.OUT_OF_RANGE)]


def test_without_acknowledgements_the_passages_of_the_paper_are_one_turn(tmp_path: Path) -> None:
    engine = Scripted(replies(relsel="My selection:[]"))
    run(tmp_path, RelSel(template="relsel", acknowledge=False), engine)
    messages = engine.asked[0].messages
    assert [role for role, _ in messages] == ["user", "assistant"] * 2 + ["user"]
    assert [line[:3] for line in messages[-1][1].splitlines()[:4]] == ["[1]", "[2]", "[3]", "[4]"]
    assert messages[-1][1].count("Question:") == 1


@pytest.mark.parametrize(
    ("kind", "template"),
    [(RelSel, "relsel"), (UtilSel, "utilsel"), (UtilRank, "utilrank")],
    ids=["relsel", "utilsel", "utilrank"],
)
def test_both_layouts_give_the_judgements_of_one_who_reads(tmp_path: Path, kind: type[Annotator], template: str) -> None:
    found = []
    for layout in ("paper", "shared_prefix"):
        judged, chains = run(tmp_path, kind(template=template, layout=layout), Scripted(reader(UTILITY)), [BEES, *many(3)])
        assert len(judged) == 4 and chains.progress.total.kept == 0
        found.append(judged)
    assert found[0] == found[1]
    best = ["d4"] if kind is UtilRank else ["d4", "d1"] if kind is UtilSel else ["d4", "d1", "d2"]
    assert [j.doc_id for j in found[0]["q1"] if j.label] == best


TEMPLATES = [
    (RelSel, "relsel", "template"),
    (UtilSel, "utilsel", "template"),
    (UtilSel, "relsel", "relsel_template"),
    (UtilSel, "pseudo_answer", "answer_template"),
    (UtilSel, "utilrank", "rank_template"),
    (UtilRank, "utilrank", "template"),
    (Likelihood, "likelihood_answer", "template"),
    (Likelihood, "pseudo_answer", "answer_template"),
    (Pointwise, "pointwise", "template"),
    (QAMetric, "qa_metric", "template"),
]
BASE = {
    UtilSel: {"template": "utilsel", "rank": True},
    Likelihood: {"template": "likelihood_answer", "target": "answer", "answer": "pseudo"},
}


@pytest.mark.parametrize(("kind", "name", "option"), TEMPLATES)
def test_a_template_file_is_used_and_named_in_its_records(
    tmp_path: Path, kind: type[Annotator], name: str, option: str
) -> None:
    path = tmp_path / f"own_{name}.yaml"
    path.write_text(packaged("prompts")[name].read_text().replace("Question: {{ query }}", "Own wording: {{ query }}"))
    texts = replies(**CHAIN, utilsel="My selection:[[1]]", utilrank="[1] > [2] > [3]")

    def answer(request: object) -> Reply | str:
        if hasattr(request, "prefix"):
            return Reply.of_score(-1.0, 1)
        if hasattr(request, "choices"):
            return Reply.of_choices({"0": -1.0, "1": -1.0, "2": -1.0, "3": -1.0})
        return texts(request)

    engine = Scripted(answer)
    annotator = kind(**(BASE.get(kind, {}) | {option: str(path)}))
    judged, _ = run(tmp_path / "store", annotator, engine)
    assert list(judged) == ["q1"]
    records = kept(tmp_path / "store", *annotator.stages)
    ours = [r for r in records if r.template == path.stem]
    assert ours and {r.template_hash for r in ours}.isdisjoint({r.template_hash for r in records if r not in ours})
    assert any("Own wording: what do bees make" in str(request) for request in engine.asked)


@pytest.mark.parametrize(("kind", "name", "option"), TEMPLATES)
def test_a_prompt_that_cannot_be_read_is_told_when_the_annotator_is_made(
    kind: type[Annotator], name: str, option: str
) -> None:
    with pytest.raises(DataError, match="absent.yaml: no such prompt"):
        kind(**(BASE.get(kind, {}) | {option: "absent.yaml"}))


def test_a_prompt_file_that_was_changed_is_read_again_and_a_run_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(packaged("prompts")["relsel"].read_text())
    before = RelSel(template=str(path))
    asks = before.asks()
    path.write_text(path.read_text().replace("Noted", "Noten"))  # as long as it was
    after = RelSel(template=str(path))
    for annotator, word in ((before, "Noted"), (after, "Noten")):
        engine = Scripted(replies(relsel="My selection:[]"))
        run(tmp_path / "store", annotator, engine)
        assert f"{word} passage [1]." in str(engine.asked[0].messages)
    assert asks == RelSel(template="relsel").asks() != after.asks()


def test_an_opening_template_file_is_the_shared_prefix(tmp_path: Path) -> None:
    path = tmp_path / "opening.yaml"
    path.write_text(packaged("prompts")["passages"].read_text().replace("Understood.", "Well understood."))
    engine = Scripted(replies(**CHAIN, utilsel="My selection:[]"))
    run(tmp_path / "store", shared(UtilSel, "utilsel", opening_template=str(path)), engine)
    assert [r.messages[1][1] for r in engine.asked] == ["Well understood. Please send the passages."] * 3
    again = Scripted(replies(**CHAIN, utilsel="My selection:[]"))
    run(tmp_path / "store", shared(UtilSel, "utilsel"), again)
    assert again.stages == ["relsel", "pseudo_answer", "utilsel"]


@pytest.mark.parametrize("option", ["template", "relsel_template", "answer_template"])
def test_a_template_file_without_turns_for_a_shared_prefix_is_refused(tmp_path: Path, option: str) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text("variables: [query]\nturns: [{role: user, content: '{{ query }}'}]\n")
    options = {"template": "utilsel", option: str(path)}
    with pytest.raises(DataError, match="shared_prefix.*layout=shared_prefix") as error:
        run(tmp_path / "store", UtilSel(**options, layout="shared_prefix"), Scripted(replies(**CHAIN)))
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("layout", ["paper", "shared_prefix"])
def test_at_most_so_many_passages_are_selected(tmp_path: Path, layout: str) -> None:
    engine = Scripted(replies(relsel="My selection:[[3],[1],[3],[2]]"))
    judged, chains = run(tmp_path, RelSel(template="relsel", max_selected=2, layout=layout), engine)
    assert [j.doc_id for j in judged["q1"] if j.label] == ["d3", "d1"]
    assert chains.progress.stages["relsel"].notes["selections_cut"] == 1
    _, chains = run(tmp_path, RelSel(template="relsel", max_selected=3, layout=layout), Scripted(replies(relsel="")), retry=())
    assert not chains.progress.stages["relsel"].notes["selections_cut"]
    pattern = engine.asked[0].pattern
    assert re.fullmatch(pattern, "My selection:[[3],[1]]") and not re.fullmatch(pattern, "My selection:[[3],[1],[2]]")


def test_patterns_know_the_passages_that_a_stage_considers(tmp_path: Path) -> None:
    for layout, numbers in (("paper", {1, 2, 3}), ("shared_prefix", {1, 2, 4})):
        engine = Scripted(replies(**CHAIN, utilsel="My selection:[[1]]", utilrank="[2] > [1]"))
        run(tmp_path / layout, UtilSel(template="utilsel", rank=True, layout=layout), engine)
        relsel, answer, selection, ranking = (r.pattern for r in engine.asked)
        assert answer is None and re.fullmatch(relsel, "My selection:[[1],[2],[3],[4]]")
        assert {n for n in range(10) if re.fullmatch(selection, f"My selection:[[{n}]]")} == numbers
        assert re.fullmatch(ranking, " > ".join(f"[{n}]" for n in numbers))


def test_nothing_is_constrained_where_it_is_not_wanted(tmp_path: Path) -> None:
    for options in ({"constrain": False}, {"reasoning": True}):
        engine = Scripted(replies(**CHAIN, utilsel="My selection:[]"))
        run(tmp_path / str(options), UtilSel(template="utilsel", **options), engine)
        assert [r.pattern for r in engine.asked] == [None] * 3


@pytest.mark.parametrize(("option", "value"), [("layout", "book"), ("max_selected", 0), ("max_selected", -1)])
def test_an_impossible_option_of_a_list_is_named(option: str, value: object) -> None:
    for kind in (RelSel, UtilSel, UtilRank):
        with pytest.raises(UserError, match=f"annotator.{option}={value!r}"):
            kind(template="relsel", **{option: value})


@pytest.mark.parametrize("threshold", [-1, 100.5])
def test_a_share_that_is_none_is_named(threshold: float) -> None:
    with pytest.raises(UserError, match=f"annotator.threshold={threshold}"):
        UtilRank(template="utilrank", threshold=threshold)
