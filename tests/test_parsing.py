"""Selections, rankings and grades in replies as models write them, whatever form the prompt asked for."""

import subprocess
import sys

import pytest

from uar.annotation.parsing import parse_grade, parse_ranking, parse_selection
from uar.llm.record import Outcome, Reply

NONE: list[int] = []
LOST = None  # unparsable

IN_FORM = [
    ("My selection:[[2],[5]]", [2, 5]),
    ("My selection: [[5], [2]]", [5, 2]),
    ("My selection:[[2],[5],[2]]", [2, 5]),
    ("My selection:[]", NONE),
    ("My selection: [ ]", NONE),
    ("My selection:[[]]", NONE),
    ("[ ]", NONE),
    ("My selection: [2, 5]", [2, 5]),
    ("My selection: [[1, 2]]", [1, 2]),
    ("My selection: [[1], [2, 3]]", [1, 2, 3]),
    ("**My selection:** [[2],[4]]", [2, 4]),
    ("**My Selection**: `[[2],[4]]`", [2, 4]),
    ("My selection：【1】，【3】", [1, 3]),  # Qwen, in Chinese
    ("[[3],[1]]", [3, 1]),
    ("```json\n[3, 1]\n```", [3, 1]),
    ("```\nMy selection:[[3],[1]]\n```", [3, 1]),
    ("My selection:\n```json\n[\n  [3],\n  [1]\n]\n```", [3, 1]),
    ('{"My selection": [[1], [3]]}', [1, 3]),
    ('```json\n{\n  "selected_passages": [\n    1,\n    3\n  ]\n}\n```', [1, 3]),
    ('My selection: ["1", "3"]', [1, 3]),
    (r"My selection: $\boxed{[[1],[3]]}$", [1, 3]),
    (r"My selection: \[1\], \[3\]", [1, 3]),
    ("Selected passages: [3].", [3]),
    ("Here is my answer.\n\nMy final selection is: [[1],[3]]", [1, 3]),
]
SEPARATED = [
    ("My selection: [1], [2] and [4]", [1, 2, 4]),
    ("My selection: [1], [2], and [4].", [1, 2, 4]),
    ("My selection: [1] [2]", [1, 2]),
    ("My selection:[1][3][5]", [1, 3, 5]),
    ("My selection: [1]; [3]; [5]", [1, 3, 5]),
    ("My selection: [1]、[3]、[5]", [1, 3, 5]),
    ("My selection: [1]和[3]", [1, 3]),
    ("My selection: [1] or [3]", [1, 3]),
    ("My selection: [1] & [3]", [1, 3]),
    ("My selection: [1] as well as [3]", [1, 3]),
    ("My selection: **[1]**, **[3]**", [1, 3]),
    ("My selection: `[1]`, `[3]`", [1, 3]),
    ("My selection:[[1]],[[3]]", [1, 3]),
    ("My selection:[[1]]; [[3]]", [1, 3]),
    ("My selection: Passage [1], Passage [3]", [1, 3]),
    ("My selection: Passages [1] and [3]", [1, 3]),
    ("My selection: [Passage 1], [Passage 3]", [1, 3]),
    ("My selection: [1]-[4]", [1, 2, 3, 4]),
    ("My selection: [1]–[3], [5]", [1, 2, 3, 5]),
    ("My selection: [2] to [4]", [2, 3, 4]),
    ("My selection: [[2]-[4]]", [2, 3, 4]),
    ("My selection: [2-4]", [2, 3, 4]),
    ("My selection:\n[1]\n[3]", [1, 3]),
    ("My selection:\n\n- [1]\n- [3]\n- [5]", [1, 3, 5]),
    ("My selection:\n* **[1]**\n* **[3]**", [1, 3]),
    ("My selection:\n• [1]\n• [3]", [1, 3]),
    ("My selection:\n1. [2]\n2. [5]", [2, 5]),
    ("My selection:\n1) [2]\n2) [5]\n", [2, 5]),
    ("My selection: 1. [2] 2. [5]", [2, 5]),
    ("My selection: [1],\n[3],\n[5]", [1, 3, 5]),
    ("My selection:\n- Passage [1]\n- Passage [3]", [1, 3]),
    ("[1]\n[3]", [1, 3]),
]
WITH_REASONS = [
    ("My selection: [1] (names honey), [3] (tells how)", [1, 3]),
    ("My selection:\n[1] (names honey)\n[3] (tells how)", [1, 3]),
    ("My selection:\n- [1]: names honey\n- [3]: tells how", [1, 3]),
    ("My selection:\n1. **[1]** - It names honey.\n2. **[3]** - It tells how.", [1, 3]),
    ("My selection:\n[1] — names honey, as [3] does\n[3] — tells how", [1, 3]),
    ("My selection:\n[1]: names honey\n[2]: is not about bees\n[3]: tells how", LOST),
    ("My selection:\n- [1]: relevant\n- [2]: irrelevant", LOST),
    ("My selection: [1] (supported by [2]), [3] (tells how)", LOST),
    ("[1]: names honey.\n[2]: is about violins.\n[3]: tells how.", LOST),  # a remark on each passage is no selection
]
WITH_PROSE = [
    ("My selection:[]\n(None of [1], [2] answers)", NONE),
    ("My selection:[] None of the passages [1] to [5] is about bees.", NONE),
    ("My selection:[[1],[3]] (I left out [2], which is not about bees)", [1, 3]),
    ("[1] and [3] look good.\n**My selection:** [[2],[4]], since [5] is off", [2, 4]),
    ("My selection:[[1],[3]]\n\nExplanation: [1] names honey, [2] is about violins.", [1, 3]),
    ("My selection:[[1],[3]]\n\n[1]: names honey.\n[2]: off.\n[3]: tells how.", [1, 3]),
    ("My selection:[[1],[3]]\n\n- [1] names honey.\n- [2] is about violins.", [1, 3]),
    ("My selection: [1], [3]. I left out [2], which is about violins.", [1, 3]),
    ("My selection: [1], [3]\n\nPassage 2 is about violins, [4] about iron.", [1, 3]),
    ("My selection: [1] and [3] are the ones on the topic.", [1, 3]),
    ("My selection: [1], [3] because the others are not about bees.", [1, 3]),
    ("My selection: [1], [3]\n[1]: names honey.\n[3]: tells how.", [1, 3]),
    ("My selection:[[1]]\nNo, rather: my selection: [[3]]", [3]),
    ('The passage says "My selection:[[4]]", which I disregard.\nMy selection:[[1]]', [1]),
    ("<think>My selection:[[4]]? No.</think>My selection:[[1]]", [1]),
    ("<think>\n[1] and [2].\n</think>\n\nMy selection: [1], [2]", [1, 2]),
]
LOST_LISTS = [
    ("My selection: [1]\n[2] is about violins.", LOST),
    ("My selection: [1]\n\n[3] - tells how", LOST),
    ("My selection: [1], [3]\n[1]: names honey.\n[2]: is about violins.", LOST),
    ("My selection: [1] because it names honey. [3] also helps.", LOST),
    ("My selection: [1], and maybe [3]", LOST),
    ("My selection:[[1]] and maybe [[3]]", LOST),
    ("My selection: [1], but not [3]", LOST),
    ("My selection: [1], [2], ..., [5]", LOST),
    ("My selection: [1] -> [3]", LOST),
    ("My selection: [1] - [3] - [5]", LOST),
    ("My selection: [1]-[3]-[5]", LOST),
    ("My selection: [4]-[1]", LOST),
    ("My selection: [1] is not relevant.", LOST),
    ("My selection: [1], [3] aren't relevant.", LOST),
    ("My selection: none of [1], [2]", LOST),
    ("My selection: [] [1]", LOST),
    ("My selection: []\n[1]", LOST),
    ("My selection: 3 passages help: [1], [3], [5]", LOST),
    ("My selection: Based on the question, [1] and [3] fit.", LOST),
    ("My selection:[[1],[2]", LOST),
    ("My selection:[[i],[j],...]", LOST),
    ("My selection:[[1", LOST),
    ("Only passage [3] is about this.", LOST),
    ("None of [1], [2]", LOST),
    ("The first and the third passage.", LOST),
    ("[1]\n[3] is about violins.", LOST),
    ("[1], [3] fit; [2] fits less.", LOST),
]
TAKEN_BACK = [
    ("My selection: [1]-[5] excluding [3]", LOST),
    ("My selection:[[1],[2],[3]] except [2]", LOST),
    ("My selection:[[1],[2],[3]] minus [[2]]", LOST),
    ("My selection:[[1],[2]], but [2] is only marginally relevant.", LOST),
    ("My selection:[[1],[2]] — on second thought, only [1].", LOST),
    ("My selection:[[1],[2]]\nWait, [2] is off. So my final selection is [[1]].", [1]),
    ("My selection:[[1],[2]]\nWait, [2] is off. Revised: [[1]]", LOST),
    ("My selection:[[1]]\nFinal answer: [[1],[3]]", LOST),
    ("My selection: [[]]\nOn reflection: [[1]]", LOST),
    ("My selection: [] but [1] is close", LOST),
    ("My selection: [[1]]\nNot in my selection: [[2]]", LOST),
    ("Not my selection: [[2]]", LOST),
    ("My selection: [1] barely", LOST),
    ("My selection: [1] is hardly relevant", LOST),
    ("My selection: [1], [2] only partially.", LOST),
    ("My selection: [1]?", LOST),
    ("My selection: [1] or [3], not sure", LOST),
    ("My selection: [1], [2], [3", LOST),
    ("My selection: [1], [2], ...", LOST),
    ("My selection: [1], [2], etc.", LOST),
    ("My selection: [1], [2] and others", LOST),
    ("My selection: [1], 3, 5", LOST),
    ("My selection: [1] and the third passage", LOST),
    ("My selection: [1][Passage A]", LOST),
    ("My selection: [1]\n\n---\n\n[3]", LOST),
    ("My selection:\n[1]\nand also\n[3]", LOST),
    ("My selection:[[1],[3]]]", [1, 3]),
    ("My selection:[[1],[3]]<|im_end|>", [1, 3]),
    ('{"My selection": [[1], [3]], "reason": "[2] is off"}', [1, 3]),
    ("My selection is [1] and [3]", [1, 3]),
]
VERDICTS = [
    ("My selection:\n[1]: Ja\n[2]: Nein", LOST),
    ("My selection:\n[1]: pertinent\n[2]: hors sujet", LOST),
    ("My selection:\n[1] - она о мёде\n[2] - она не о мёде", LOST),
    ("My selection:\n[1]: 관련 있음\n[2]: 관련 없음", LOST),
    ("My selection: [1] (high), [2] (low)", LOST),
    ("My selection: [1] (relevant), [2] (rejected)", LOST),
    ("My selection: [1] - 1\n[2] - 0", LOST),
    ("My selection: [1] (✓), [2] (✗)", LOST),
    ("My selection:\n- [1]: about honey\n- [2]: partly off", LOST),
    ("My selection: [1] (relevant), [3] (yes)", [1, 3]),
    ("My selection:\n- [1]: ✅\n- [3]: ✅", [1, 3]),
]


FORMS = [*IN_FORM, *SEPARATED, *WITH_REASONS, *WITH_PROSE, *LOST_LISTS, *TAKEN_BACK, *VERDICTS]


@pytest.mark.parametrize(("text", "chosen"), FORMS)
def test_a_selection_is_read_whole_or_not_at_all(text: str, chosen: list[int] | None) -> None:
    wanted = (Outcome.UNPARSABLE, []) if chosen is LOST else (Outcome.OK, chosen)
    assert parse_selection(Reply(text), range(1, 6)) == wanted


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("My selection:[[1],[6]]", Outcome.OUT_OF_RANGE),
        ("My selection:[[0]]", Outcome.OUT_OF_RANGE),
        ("My selection: [3]-[6]", Outcome.OUT_OF_RANGE),
        ("My selection: [1-999999999]", Outcome.OUT_OF_RANGE),
        ("My selection: [99999999999999999999]", Outcome.OUT_OF_RANGE),
        ("", Outcome.EMPTY),
        (" \n ", Outcome.EMPTY),
        ("<think>My selection:[[1]]", Outcome.EMPTY),
        ("I'm sorry, but I can't help with that.", Outcome.REFUSED),
        ("As an AI language model I have no opinion.", Outcome.REFUSED),
    ],
)
def test_what_is_wrong_with_a_selection_is_named(text: str, outcome: Outcome) -> None:
    assert parse_selection(Reply(text), range(1, 6)) == (outcome, [])


RANKINGS = [
    ("[2] > [3] > [1] > [4]", [2, 3, 1, 4], NONE),
    ("**[2]** > **[3]** > **[1]** > **[4]**", [2, 3, 1, 4], NONE),
    ("Ranking: [2] ＞ [3] ＞ [1] ＞ [4]", [2, 3, 1, 4], NONE),
    ("[2] &gt; [3] &gt; [1] &gt; [4]", [2, 3, 1, 4], NONE),
    ("> [2] > [3] > [1] > [4]", [2, 3, 1, 4], NONE),  # quoted, in Markdown
    ("```\n[2] > [3] > [1] > [4]\n```", [2, 3, 1, 4], NONE),
    ("Ranking = [2] > [3] > [1] > [4]", [2, 3, 1, 4], NONE),
    ("[2] >= [3] >> [1] -> [4]", [2, 3, 1, 4], NONE),
    ("[Passage 2] > [Passage 3] > [Passage 1] > [Passage 4]", [2, 3, 1, 4], NONE),
    ("[2] > [3] = [1] > [4]", [2, 3, 1, 4], NONE),
    ("[2] > [3] ≈ [1] > [4]", [2, 3, 1, 4], NONE),
    ("[1], [2] > [3] > [4]", [1, 2, 3, 4], NONE),
    ("[1] and [2] > [3] > [4]", [1, 2, 3, 4], NONE),
    ("[2] > 1 > [3] > [4]", [2, 1, 3, 4], NONE),
    ("2 > [1] > [3] > [4]", [2, 1, 3, 4], NONE),
    ("[2] > passage 1 > [3] > [4]", [2, 1, 3, 4], NONE),
    ("[2] >\n[3] >\n[1] >\n[4]", [2, 3, 1, 4], NONE),
    ("[2] > … > [1]", [2, 3, 4, 1], [3, 4]),
    ("[2] > ... > [1]", [2, 3, 4, 1], [3, 4]),
    ("[2] > [4] > ...", [2, 4, 1, 3], [1, 3]),
    ("[2] > [4] > the rest", [2, 4, 1, 3], [1, 3]),
    ("[2] > [4] (I left [1] and [3] out)", [2, 4, 1, 3], [1, 3]),
    ("[3] > [1] > [4]. Passage [2] is about violins.", [3, 1, 4, 2], [2]),
    ("1. [3]\n2. [1]\n3. [2]\n4. [4]", [3, 1, 2, 4], NONE),
    ("Ranking: [3], [1]", [3, 1, 2, 4], [2, 4]),
    ("[2]", [2, 1, 3, 4], [1, 3, 4]),
    ("Since [1] > [2] in style: [2]>[3] > [1], not [3] > [1]", [2, 3, 1, 4], [4]),
    ("At first [1] > [2] > [3] > [4], then\n[3] > [2] > [1] > [4]", [3, 2, 1, 4], NONE),
    ("<think>[1] > [2] > [3] > [4]</think>[4] > [3] > [2] > [1]", [4, 3, 2, 1], NONE),
    ("[2] > the first > [3] > [4]", LOST, NONE),
    ("Passage two > [3] > [4]", LOST, NONE),
    ("[2] > [x] > [3] > [4]", LOST, NONE),
    ("[2] > ? > [3] > [4]", LOST, NONE),
    ("[1] < [2] > [3]", LOST, NONE),
    ("[4] < [3] < [2] < [1]", LOST, NONE),
    ("[4]; [2] > [3]", LOST, NONE),
    ("[2] > [3] [4]", LOST, NONE),
    ("[2] > [3] > none > [4]", LOST, NONE),
    ("[2] > [1]\n[3] > [4]", LOST, NONE),
    ("[2] > [1], [3] > [1]", LOST, NONE),
    ("[3] helps most, [1] least.", LOST, NONE),
    ("[]", LOST, NONE),
    ("[3] is best.\n[1] > [2] > [4]", LOST, NONE),
    ("Best: [3]\nRest: [1] > [2] > [4]", LOST, NONE),
    ("Passage [1] is better than [2] > [3]", LOST, NONE),
    ("**1.** [2] > **2.** [3] > [1]", LOST, NONE),
    ("Least useful first: [2] > [3] > [1] > [4]", LOST, NONE),
    ("[2] > [3] > [1] > [4] (from worst to best)", LOST, NONE),
    ("[2] > [3] > [1] > [4]\nFinal: [1] > [2]", LOST, NONE),
    ("[2] > [3] > [1] > [4]\nAgain: [2] > [3]", [2, 3, 1, 4], NONE),
]


@pytest.mark.parametrize(("text", "order", "left_out"), RANKINGS)
def test_a_ranking_keeps_its_first_choice_or_is_not_read(text: str, order: list[int] | None, left_out: list[int]) -> None:
    wanted = (Outcome.UNPARSABLE, [], []) if order is LOST else (Outcome.OK, order, left_out)
    assert parse_ranking(Reply(text), range(1, 5)) == wanted


@pytest.mark.parametrize(
    ("text", "outcome"), [("[1] > [5]", Outcome.OUT_OF_RANGE), ("", Outcome.EMPTY), ("I'm unable to rank.", Outcome.REFUSED)]
)
def test_what_is_wrong_with_a_ranking_is_named(text: str, outcome: Outcome) -> None:
    assert parse_ranking(Reply(text), range(1, 5)) == (outcome, [], [])


@pytest.mark.parametrize(
    ("text", "outcome", "grade"),
    [
        ("2", Outcome.OK, 2),
        ("Grade: 3.", Outcome.OK, 3),
        ("**Grade:** `3`", Outcome.OK, 3),
        ("Grade-2", Outcome.OK, 2),
        ("- 2", Outcome.OK, 2),
        ("1.0", Outcome.OK, 1),
        ("2, since 2 is a part of the answer", Outcome.OK, 2),
        ("4", Outcome.OUT_OF_RANGE, None),
        ("-1", Outcome.OUT_OF_RANGE, None),
        ("Grade: −1", Outcome.OUT_OF_RANGE, None),
        ("99999999999999999999", Outcome.OUT_OF_RANGE, None),
        ("1.1", Outcome.UNPARSABLE, None),
        ("1,1", Outcome.UNPARSABLE, None),
        ("2/2", Outcome.UNPARSABLE, None),
        ("2 / 2", Outcome.UNPARSABLE, None),
        ("2 out of 2", Outcome.UNPARSABLE, None),
        ("2 of 3", Outcome.UNPARSABLE, None),
        ("1-2", Outcome.UNPARSABLE, None),
        ("2+", Outcome.UNPARSABLE, None),
        ("2%", Outcome.UNPARSABLE, None),
        ("two", Outcome.UNPARSABLE, None),
        ("2?", Outcome.UNPARSABLE, None),
        ("2½", Outcome.UNPARSABLE, None),
        ("2nd", Outcome.UNPARSABLE, None),
        ("<2", Outcome.UNPARSABLE, None),
        ("≥ 2", Outcome.UNPARSABLE, None),
        ("at least 2", Outcome.UNPARSABLE, None),
        ("less than a 2", Outcome.UNPARSABLE, None),
        ("Not a 3", Outcome.UNPARSABLE, None),
        ("It doesn't deserve 2", Outcome.UNPARSABLE, None),
        ("Passage 2", Outcome.UNPARSABLE, None),
        ("not relevant (0)", Outcome.OK, 0),
        ("It does not answer, so 0", Outcome.OK, 0),
        ("<grade>2</grade>", Outcome.OK, 2),
        ("评分：2分", Outcome.OK, 2),
        ("I'm sorry, I can't grade that.", Outcome.REFUSED, None),
        ("", Outcome.EMPTY, None),
        ("<think>2", Outcome.EMPTY, None),
    ],
)
def test_a_grade_is_read_or_its_failure_named(text: str, outcome: Outcome, grade: int | None) -> None:
    assert parse_grade(Reply(text), range(4)) == (outcome, grade)


@pytest.mark.parametrize("outcome", [Outcome.TRUNCATED, Outcome.ERROR, Outcome.REFUSED])
def test_a_failed_reply_names_nothing_whatever_it_says(outcome: Outcome) -> None:
    assert parse_selection(Reply("My selection:[[1],[2]]", outcome), range(1, 6)) == (outcome, [])
    assert parse_ranking(Reply("[1] > [2]", outcome), range(1, 3)) == (outcome, [], [])
    assert parse_grade(Reply("2", outcome), range(4)) == (outcome, None)


LONG = ['"[" + "2010, " * 3000 + "and so on"', '"My selection:" + "[" * 20000', '"My selection: [1] " + "*" * 20000 + "x"',
        '"[1] > " * 5000 + "x"', '"[1], " * 5000', '" " * 20000 + "[1] >"', '"My selection: [1] (" * 2000']  # fmt: skip


def test_long_replies_that_run_away_do_not_hang() -> None:
    program = f"""
from uar.annotation.parsing import parse_ranking, parse_selection
from uar.llm.record import Reply
for text in [{", ".join(LONG)}]:
    parse_selection(Reply(text), range(1, 6)), parse_ranking(Reply(text), range(1, 6))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
