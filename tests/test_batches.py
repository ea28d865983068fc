from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_passages import NumberedPassages

from uar.collections.token_ids import Tokens
from uar.labels import Example, Stage
from uar.retrievers.trainable import first_places
from uar.storage.files import write_json
from uar.training.batches import Batch, BatchStream
from uar.training.masks import close_to_positive

EXAMPLES = [Example(f"q{i}", (f"d{i}", f"d{i + 1}"), tuple(f"d{j}" for j in range(i + 2, i + 8)), "llm") for i in range(20)]
ROWS = NumberedPassages({f"d{i}": i for i in range(30)})


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """Row r holds the single token r."""
    np.arange(30, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    np.save(tmp_path / "ends.npy", np.arange(31))
    write_json(tmp_path / "manifest.json", {"dtype": "uint16", "tokens": 30})
    return Tokens(tmp_path)


def stream(
    tokens: Tokens, positives: str = "all", seed: int = 0, rank: int = 0, world: int = 1, queries: int = 20, size: int = 4
) -> BatchStream:
    stage = Stage("llm", EXAMPLES[:queries], 1, positives)
    return BatchStream(stage, tokens, {f"q{i}": i for i in range(20)}, tokens, ROWS, size, 4, seed, rank, world)


def content(batch: Batch) -> tuple:
    return tuple(batch.query_ids), tuple(batch.rows.tolist())


def test_an_epoch_shows_each_query_once_and_each_passage_of_a_batch_once(tokens: Tokens):
    batches = list(stream(tokens))
    assert sorted(q for b in batches for q in b.query_ids) == sorted(e.query_id for e in EXAMPLES)
    for batch in batches:
        assert len(set(batch.rows.tolist())) == len(batch.rows) == len(batch.passages)
        assert [int(p[0]) for p in batch.passages] == batch.rows.tolist()


def test_order_and_sampling_depend_on_seed_and_epoch_alone(tokens: Tokens):
    one, other = stream(tokens), stream(tokens)
    first, second = [content(b) for b in one], [content(b) for b in one]
    assert first == [content(b) for b in other]
    assert first != second and first != [content(b) for b in stream(tokens, seed=1)]


def test_a_resumed_stream_goes_on_with_the_same_batches(tokens: Tokens):
    whole = stream(tokens)
    expected = [content(b) for _ in range(2) for b in whole]
    for stop in range(1, len(expected)):
        broken, seen = stream(tokens), []
        while len(seen) < stop:
            for batch in broken:
                seen.append(content(batch))
                if len(seen) == stop:
                    break
        resumed = stream(tokens)
        resumed.load_state_dict(broken.state_dict())
        while len(seen) < len(expected):
            seen.extend(content(b) for b in resumed)
        assert seen == expected


def test_processes_share_the_queries_of_an_epoch(tokens: Tokens):
    parts = [list(stream(tokens, rank=rank, world=2)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    for left, right in zip(*parts, strict=True):
        assert len(left.query_ids) == len(right.query_ids) and not set(left.query_ids) & set(right.query_ids)


@pytest.mark.parametrize(("queries", "size", "world", "shown"), [(19, 2, 2, 18), (20, 2, 3, 18), (5, 1, 2, 4), (2, 4, 3, 2)])
def test_less_than_one_query_a_process_is_left_out_of_an_epoch(
    tokens: Tokens, queries: int, size: int, world: int, shown: int
):
    parts = [list(stream(tokens, rank=rank, world=world, queries=queries, size=size)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert all(len({len(b.query_ids) for b in together}) == 1 for together in zip(*parts, strict=True))
    assert len({q for part in parts for b in part for q in b.query_ids}) == shown
    assert max(len(b.query_ids) for part in parts for b in part) <= size


def test_one_positive_a_query_is_drawn_anew_each_epoch(tokens: Tokens):
    one = stream(tokens, positives="one")
    drawn = [{q: int(t[0]) for b in one for q, t in zip(b.query_ids, b.targets, strict=True)} for _ in range(4)]
    assert all(len(t) == 1 for b in one for t in b.targets)
    assert any(drawn[0] != later for later in drawn[1:])
    assert all(drawn[0][f"q{i}"] in {i, i + 1} for i in range(20))


def test_the_average_number_of_positives_is_learnt_at_once(tokens: Tokens):
    examples = [Example(f"q{i}", tuple(f"d{j}" for j in range(1 + i % 3)), ("d9", "d10", "d11"), "llm") for i in range(9)]
    stage = Stage("llm", examples, 1, "average")
    made = BatchStream(stage, tokens, {f"q{i}": i for i in range(9)}, tokens, ROWS, 3, 4, 0)
    batches = list(made)
    assert {int((row >= 0).sum()) for b in batches for row in b.targets} == {1, 2}
    assert all(set(t.tolist()) - {-2} <= set(k.tolist()) for b in batches for t, k in zip(b.targets, b.known, strict=True))


def listed(targets: list, known: list, judged: list | None = None, utility: list | None = None) -> Batch:
    empty = torch.empty(len(targets), 0)
    rows = torch.tensor([])
    soft = (torch.tensor(judged), torch.tensor(utility)) if judged else (empty.long(), empty)
    return Batch(
        ["q"] * len(targets),
        [],
        [],
        rows,
        empty.long(),
        torch.tensor(targets),
        torch.tensor(known),
        *soft,
        torch.ones(len(targets)),
    )


def test_a_known_positive_is_a_target_or_nothing_but_never_a_negative():
    batch = listed([[1], [2]], [[1, 3], [2, -2]])
    rows = torch.tensor([1, 2, 3, 4])
    (targets, valid), utility = batch.masks(rows), batch.utilities(rows)
    assert targets.tolist() == [[True, False, False, False], [False, True, False, False]]
    assert valid.tolist() == [[True, True, False, True], [True, True, True, True]]
    assert utility.isnan().all()


def test_an_ignored_passage_is_known_and_never_a_target(tokens: Tokens):
    stage = Stage(
        "llm", [Example("q0", ("d1",), ("d2",), "llm", ignored=("d3",)), Example("q1", ("d3",), ("d1",), "llm")], 1, "all"
    )
    (batch,) = BatchStream(stage, tokens, {"q0": 0, "q1": 1}, tokens, ROWS, 2, 4, 0)
    targets, valid = batch.masks(batch.rows)
    place, row = batch.rows.tolist().index(3), batch.query_ids.index("q0")
    assert not targets[row, place] and not valid[row, place] and valid[1 - row, place]


def test_queries_of_equal_text_are_not_each_others_negatives(tokens: Tokens):
    examples = [
        Example("q0", ("d1",), ("d2", "d3"), "llm", ignored=("d5",)),
        Example("q1", ("d3",), ("d4", "d5"), "llm"),
        Example("q2", ("d6",), ("d1",), "llm"),
    ]
    made = BatchStream(Stage("llm", examples, 1, "all"), tokens, {"q0": 7, "q1": 7, "q2": 8}, tokens, ROWS, 3, 4, 0)
    (batch,) = made
    targets, valid = batch.masks(batch.rows)
    rows, places = {q: n for n, q in enumerate(batch.query_ids)}, batch.rows.tolist()
    counted = {q: {f"d{d}" for d, v in zip(places, valid[rows[q]], strict=True) if v} for q in rows}
    assert counted == {"q0": {"d1", "d2", "d4", "d6"}, "q1": {"d3", "d2", "d4", "d6"}, "q2": {f"d{n}" for n in range(1, 7)}}
    assert [int(t.sum()) for t in targets] == [1, 1, 1]


def test_copies_of_a_positive_are_no_negatives_and_stand_in_a_batch_once(tmp_path: Path):
    np.array([0, 5, 6, 5, 8, 6], dtype=np.uint16).tofile(tmp_path / "ids.bin")  # d3 is a copy of d1, and d5 of d2
    np.save(tmp_path / "ends.npy", np.arange(7))
    write_json(tmp_path / "manifest.json", {"dtype": "uint16", "tokens": 6})
    copied, rows = Tokens(tmp_path), NumberedPassages({f"d{n}": n for n in range(6)})
    examples = [
        Example("q0", ("d1",), ("d2", "d3"), "llm", utility=(3.0, 2.0, 1.0)),
        Example("q1", ("d4",), ("d5", "d3"), "llm", ignored=("d2",)),
    ]
    (batch,) = BatchStream(Stage("llm", examples, 1, "all"), copied, {"q0": 0, "q1": 4}, copied, rows, 2, 4, 0)
    targets, valid = batch.masks(batch.rows)
    place = {row: batch.rows.tolist().index(row) for row in (1, 2, 4)}
    assert len(batch.passages) == 3
    counted = {q: {row for row in place if valid[at, place[row]]} for at, q in enumerate(batch.query_ids)}
    assert counted == {"q0": {1, 2, 4}, "q1": {1, 4}}
    learnt = {q: [row for row in place if targets[at, place[row]]] for at, q in enumerate(batch.query_ids)}
    assert learnt == {"q0": [1], "q1": [4]}
    useful = batch.utilities(batch.rows)[batch.query_ids.index("q0")]
    assert [float(useful[place[row]]) for row in (1, 2)] == [3.0, 2.0] and useful[place[4]].isnan()


def test_a_copy_takes_the_place_of_no_other_passage(tmp_path: Path):
    np.array([0, 1, 1, 1, 2], dtype=np.uint16).tofile(tmp_path / "ids.bin")
    np.save(tmp_path / "ends.npy", np.arange(6))
    write_json(tmp_path / "manifest.json", {"dtype": "uint16", "tokens": 5})
    copied, rows = Tokens(tmp_path), NumberedPassages({f"d{n}": n for n in range(5)})
    stage = Stage("llm", [Example("q", ("d1",), ("d2", "d3", "d4"), "llm")], 1, "all")
    assert {
        tuple(sorted(b.rows.tolist()))
        for seed in range(5)
        for b in BatchStream(stage, copied, {"q": 0}, copied, rows, 1, 2, seed)
    } == {(1, 4)}
    twice = Stage(
        "llm", [Example("q", ("d1", "d2"), ("d3", "d4"), "llm"), Example("p", ("d4",), ("d1", "d2", "d0"), "llm")], 1, "all"
    )
    for seed in range(5):  # of q, whose copies are one positive, d4 is shown, and of p, whose copies are one negative, d0
        batches = BatchStream(twice, copied, {"q": 0, "p": 4}, copied, rows, 1, 3, seed)
        assert {b.query_ids[0]: sorted(b.rows.tolist()) for b in batches} == {"q": [1, 4], "p": [0, 1, 4]}


def test_a_passage_gathered_twice_and_padding_count_once_and_never():
    batch, rows = listed([[7]], [[7]], [[7, 5]], [[0.5, 0.25]]), torch.tensor([7, 5, -1, 7, 5])
    (targets, valid), utility = batch.masks(rows), batch.utilities(rows)
    assert targets.tolist() == [[True, False, False, False, False]]
    assert valid.tolist() == [[True, True, False, False, False]]
    assert utility[0, :2].tolist() == [0.5, 0.25] and utility[0, 2:].isnan().all()


def test_utilities_go_with_their_passages(tokens: Tokens):
    example = Example("q0", ("d4",), ("d2", "d1"), "llm", utility=(0.9, None, 0.1))
    (batch,) = BatchStream(Stage("llm", [example], 1, "all"), tokens, {"q0": 0}, tokens, ROWS, 1, 4, 0)
    found = dict(zip(batch.rows.tolist(), batch.utilities(batch.rows)[0].tolist(), strict=True))
    assert found[4] == pytest.approx(0.9) and found[1] == pytest.approx(0.1) and found[2] != found[2]


def weighted(tokens: Tokens, weights: list[float]) -> list[Batch]:
    examples = [replace(e, weight=w) for e, w in zip(EXAMPLES, weights, strict=False)]
    made = BatchStream(Stage("llm", examples, 1, "all"), tokens, {f"q{i}": i for i in range(20)}, tokens, ROWS, 4, 4, 0)
    return list(made)


def test_the_weights_of_a_batch_are_those_of_its_queries_beside_the_greatest_of_the_stage(tokens: Tokens):
    weights = [0.3, 3.0, 0.0, 1.5, 0.6, 0.0]
    found = {q: w for b in weighted(tokens, weights) for q, w in zip(b.query_ids, b.row_weights.tolist(), strict=True)}
    assert found == {"q0": pytest.approx(0.1), "q1": 1.0, "q3": 0.5, "q4": pytest.approx(0.2)}  # weight 0 is left out
    for equal in (1.0, 0.3, 1e-40):
        assert all(b.row_weights.eq(1).all() for b in weighted(tokens, [equal] * 6))


def test_first_places_are_those_of_a_plain_search():
    torch.manual_seed(0)
    rows = torch.randint(-1, 9, (60,))
    seen: set[int] = set()
    expected = [r >= 0 and r not in seen and not seen.add(r) for r in rows.tolist()]
    assert first_places(rows).tolist() == expected


def test_negatives_that_score_close_to_the_positive_may_be_left_out():
    scores = torch.tensor([[0.8, 0.75, 0.6, 0.9, 0.5]])
    targets = torch.tensor([[True, False, False, False, True]])
    assert close_to_positive(scores, targets, 0.1).tolist() == [[False, True, False, True, False]]
    assert close_to_positive(scores, targets, -0.05).tolist() == [[False, False, False, True, False]]


def random_stream(tokens: Tokens, number: int, rank: int = 0, world: int = 1) -> BatchStream:
    stage = Stage("llm", EXAMPLES[:12], 1, "all")
    rows = NumberedPassages({d: row for d, row in ROWS.items() if row < 20})  # of the passages that the examples have
    return BatchStream(stage, tokens, {f"q{i}": i for i in range(20)}, tokens, rows, 4 // world, 4, 0, rank, world, number)


def test_random_passages_are_negatives_of_all_queries_of_a_batch(tokens: Tokens):
    plain, more = list(random_stream(tokens, 0)), list(random_stream(tokens, 3))
    added = []
    for without, batch in zip(plain, more, strict=True):
        assert batch.query_ids == without.query_ids
        assert batch.rows.tolist()[: len(without.rows)] == without.rows.tolist()
        assert [int(p[0]) for p in batch.passages] == batch.rows.tolist() and len(set(batch.rows.tolist())) == len(batch.rows)
        targets, valid = batch.masks(batch.rows)
        assert not targets[:, len(without.rows) :].any()
        for query, row in enumerate(batch.known.tolist()):  # a known positive that is drawn is no negative
            assert all(bool(v) == (int(r) not in row) for r, v in zip(batch.rows, valid[query], strict=True) if r >= 20)
        added += batch.rows.tolist()[len(without.rows) :]
    assert any(row >= 20 for row in added)  # which no example has
    assert [content(b) for b in random_stream(tokens, 3)] == [content(b) for b in more]
    stream = random_stream(tokens, 3)
    epochs = [[content(b) for b in stream] for _ in range(2)]
    assert epochs[0] != epochs[1]


def test_processes_draw_the_random_passages_that_one_would(tokens: Tokens):
    def drawn(stream: BatchStream) -> dict[str, list[int]]:
        return {e.query_id: stream._drawn(e) for e in EXAMPLES[:12]}

    assert drawn(random_stream(tokens, 2)) == drawn(random_stream(tokens, 2, rank=1, world=2))


def test_a_random_copy_of_a_known_passage_stands_where_that_one_does(tmp_path: Path):
    np.zeros(30, dtype=np.uint16).tofile(tmp_path / "ids.bin")  # all passages are copies of the first
    np.save(tmp_path / "ends.npy", np.arange(31))
    write_json(tmp_path / "manifest.json", {"dtype": "uint16", "tokens": 30})
    batch = next(iter(random_stream(Tokens(tmp_path), 3)))
    assert batch.rows.tolist() == [0]
