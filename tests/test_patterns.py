"""Regular expressions that hold replies to their format."""

import re
from itertools import permutations, product

import pytest

from uar.annotation.parsing import parse_ranking, parse_selection, ranking_pattern, selection_pattern
from uar.llm.record import Outcome, Reply

NUMBERS = [(1,), (1, 2), (2, 4, 5), (1, 10, 11), tuple(range(1, 32))]


def selection_of(numbers: tuple[int, ...]) -> str:
    return f"My selection:[{','.join(f'[{n}]' for n in numbers)}]"


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
@pytest.mark.parametrize("most", [None, 1, 2, 40])
def test_a_selection_pattern_matches_selections_and_nothing_else(numbers: tuple[int, ...], most: int | None) -> None:
    pattern = re.compile(selection_pattern(numbers, most))
    limit = min(most or len(numbers), len(numbers))
    for length in range(min(limit, 3) + 1):
        for chosen in permutations(numbers[-4:], min(length, len(numbers))):
            assert pattern.fullmatch(selection_of(chosen))
            assert parse_selection(Reply(selection_of(chosen)), numbers) == (Outcome.OK, list(chosen))
    assert pattern.fullmatch(selection_of(numbers[:limit]))
    assert not pattern.fullmatch(selection_of((*numbers[:limit], numbers[0])))
    for other in set(range(130)) - set(numbers):
        assert not pattern.fullmatch(selection_of((other,)))
        assert limit < 2 or not pattern.fullmatch(selection_of((numbers[0], other)))
    good, first = selection_of(numbers[:limit]), numbers[0]
    faulty = {f"My selection:{middle}" for middle in ("", "[", "[[]]", "[,]", f"[{first}]", f"[[{first}],]", f"[[0{first}]]")}
    faulty |= {good + " ", " " + good, good + "\n", good[:-1], good.lower(), good.replace(":", ": "), good * 2, good[13:]}
    faulty |= {good.replace("],[", sign) for sign in ("][", "], [", "];[", "] > [", "],,[")} - {good}
    assert [text for text in faulty if pattern.fullmatch(text)] == []


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_a_ranking_pattern_matches_rankings_and_nothing_else(numbers: tuple[int, ...]) -> None:
    pattern = re.compile(ranking_pattern(numbers))

    def ranking(of: tuple[int, ...], sign: str = " > ") -> str:
        return sign.join(f"[{n}]" for n in of)

    orders = permutations(numbers) if len(numbers) < 5 else [numbers, numbers[::-1], numbers[7:] + numbers[:7]]
    for order in orders:
        assert pattern.fullmatch(ranking(order))
        assert parse_ranking(Reply(ranking(order)), numbers) == (Outcome.OK, list(order), [])
    for other in set(range(130)) - set(numbers):
        assert not pattern.fullmatch(ranking((*numbers[:-1], other)))
    good = ranking(numbers)
    faulty = {
        "",
        good + " ",
        " " + good,
        good + "\n",
        good + " > ",
        good[1:],
        ranking((*numbers, numbers[0])),
        ranking(numbers[:-1]),
    }
    faulty |= {ranking(numbers, sign) for sign in (">", " >", " > > ", ", ", " < ", "")} - {good}
    assert [text for text in faulty if pattern.fullmatch(text)] == []


def test_what_a_pattern_allows_is_read() -> None:
    for numbers, length in product([(1, 2, 3), (2, 9, 12)], (1, 2, 3)):
        for chosen in product(numbers, repeat=length):  # a pattern cannot forbid that a number comes twice
            assert re.fullmatch(selection_pattern(numbers, None), selection_of(chosen))
            assert parse_selection(Reply(selection_of(chosen)), numbers) == (Outcome.OK, list(dict.fromkeys(chosen)))
