from pathlib import Path

import numpy as np
import pytest
import torch

from uar.collections.tokens import Tokens
from uar.files import write_json
from uar.labels import Example, Stage
from uar.training.batches import Batch, BatchStream, masks

EXAMPLES = [Example(f"q{i}", (f"d{i}", f"d{i + 1}"), tuple(f"d{j}" for j in range(i + 2, i + 8)), "llm") for i in range(20)]
ROWS = {f"d{i}": i for i in range(30)}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """Row r holds the single token r."""
    np.arange(30, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    np.save(tmp_path / "ends.npy", np.arange(31))
    write_json(tmp_path / "manifest.json", {"dtype": "uint16", "tokens": 30})
    return Tokens(tmp_path)


def stream(tokens: Tokens, positives: str = "all", seed: int = 0, rank: int = 0, world: int = 1) -> BatchStream:
    stage = Stage("llm", EXAMPLES, 1, positives)
    return BatchStream(stage, tokens, {f"q{i}": i for i in range(20)}, tokens, ROWS, 4, 4, seed, rank, world)


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


def test_one_positive_a_query_is_drawn_anew_each_epoch(tokens: Tokens):
    one = stream(tokens, positives="one")
    drawn = [{q: int(t[0]) for b in one for q, t in zip(b.query_ids, b.targets, strict=True)} for _ in range(4)]
    assert all(len(t) == 1 for b in one for t in b.targets)
    assert any(drawn[0] != later for later in drawn[1:])
    assert all(drawn[0][f"q{i}"] in {i, i + 1} for i in range(20))


def test_a_known_positive_is_a_target_or_nothing_but_never_a_negative():
    batch = Batch(["a", "b"], [], [], torch.tensor([]), torch.tensor([[1], [2]]), torch.tensor([[1, 3], [2, -2]]))
    targets, valid = masks(batch, torch.tensor([1, 2, 3, 4]))
    assert targets.tolist() == [[True, False, False, False], [False, True, False, False]]
    assert valid.tolist() == [[True, True, False, True], [True, True, True, True]]


def test_a_passage_gathered_twice_and_padding_count_once_and_never():
    batch = Batch(["a"], [], [], torch.tensor([]), torch.tensor([[7]]), torch.tensor([[7]]))
    targets, valid = masks(batch, torch.tensor([7, 5, -1, 7, 5]))
    assert targets.tolist() == [[True, False, False, False, False]]
    assert valid.tolist() == [[True, True, False, False, False]]
