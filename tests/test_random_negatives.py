"""When random passages of the corpus are among the negatives, and what that changes."""

import pytest

from uar.errors import UserError
from uar.launch.entry import composed
from uar.pools import BM25Pool, GivenPool, UnionPool
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.cross_encoder.cross_encoder import CrossEncoder
from uar.training.checks import random_negatives

PAIRS = CrossEncoder.__new__(CrossEncoder)
ENCODER = BiEncoder.__new__(BiEncoder)  # of which the class alone is looked at


def test_pools_of_bm25_get_one_by_default_and_an_option_wins() -> None:
    assert (random_negatives(None, BM25Pool(8), ENCODER), random_negatives(None, GivenPool(8), ENCODER)) == (1, 0)
    both = UnionPool(8, sources={"bm25": BM25Pool(8), "given": GivenPool(8)})
    assert (random_negatives(None, both, ENCODER), random_negatives(None, BM25Pool(8), PAIRS)) == (0, 0)
    assert (random_negatives(0, BM25Pool(8), ENCODER), random_negatives(3, GivenPool(8), ENCODER)) == (0, 3)
    with pytest.raises(UserError, match="random_negatives=-1: a whole number from 0 on"):
        random_negatives(-1, BM25Pool(8), ENCODER)


@pytest.mark.parametrize("scale", [[], ["+scale=mini"]])
@pytest.mark.parametrize("name", ["table2_in_domain", "table5_nq_hotpotqa", "figure3_human_budget"])
def test_the_papers_experiments_have_none(name: str, scale: list[str]) -> None:
    assert composed("train", f"+experiment={name}", *scale).training.random_negatives == 0
    assert composed("train").training.random_negatives is None
