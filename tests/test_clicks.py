"""Click-through as labels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from uar.collections import open_collection
from uar.collections.click_log import Shown, read_clicks
from uar.errors import DataError, UserError
from uar.labels import ClickLabels, LabelContext
from uar.labels.clicks import click_rates
from uar.losses import kl

LOG = "query\tdoc\timpressions\tclicks\tposition\nq1\td2\t100\t30\t1\nq1\td1\t100\t30\t4\nq1\td3\t90\t1\t2\nq1\td3\t10\t0\t5\n"


@pytest.fixture
def context(folder: Path) -> LabelContext:
    collection = open_collection(f"local:{folder}:train")

    def pools(query_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {q: ["d1", "d6"] for q in query_ids}

    return LabelContext(collection, list(collection.queries), pools, dict, seed=0)


def log(folder: Path, text: str) -> Path:
    (folder / "clicks.tsv").write_text(text)
    return folder / "clicks.tsv"


def test_a_click_far_down_is_worth_more_than_one_at_the_top():
    rates = click_rates([Shown("q", "a", 100, 20, 1), Shown("q", "b", 100, 20, 4)], eta=1, prior=0)["q"]
    assert rates == {"a": pytest.approx(20 / 100), "b": pytest.approx(20 / 25)}
    assert click_rates([Shown("q", "a", 100, 20, 1), Shown("q", "b", 100, 20, 4)], eta=0, prior=0)["q"]["b"] == 0.2


def test_the_positions_of_a_passage_add_up_and_few_impressions_count_little():
    rows = [Shown("q", "a", 60, 30, 1), Shown("q", "a", 80, 10, 2), Shown("q", "b", 1, 1, 1)]
    rates = click_rates(rows, eta=1, prior=10)["q"]
    mean = 41 / 101
    assert rates["a"] == pytest.approx((40 + 10 * mean) / 110) and rates["b"] == pytest.approx((1 + 10 * mean) / 11)
    assert click_rates([Shown("q", "a", 10, 10, 10)], eta=1, prior=0)["q"]["a"] == 1.0


def test_clicked_passages_are_positive_and_all_shown_have_a_utility(folder: Path, context: LabelContext):
    (stage,) = ClickLabels(str(log(folder, LOG)), threshold=0.5).stages(context)
    (example,) = stage.examples
    assert (example.positives, example.negatives, example.source) == (("d1",), ("d2", "d3"), "clicks")
    assert list(example.utilities()) == ["d1", "d2", "d3"]
    stage.check(kl)
    (stage,) = ClickLabels(str(log(folder, LOG)), threshold=0.99).stages(context)
    assert stage.examples[0].positives == ("d1",)  # none gets there, the best does


def test_a_copy_of_a_clicked_passage_has_its_label(folder: Path, context: LabelContext):
    path = folder / "corpus.jsonl"
    path.write_text(
        path.read_text().replace("The Danube flows into the Black Sea.", "The heart pumps blood through the body.")
    )
    context = replace(context, collection=open_collection(f"local:{folder}:train"))
    (stage,) = ClickLabels(str(log(folder, LOG)), threshold=0.5).stages(context)
    (example,) = stage.examples
    assert (example.positives, example.negatives) == (("d1", "d3"), ("d2",))
    assert example.utilities()["d3"] == example.utilities()["d1"]


def test_only_shown_passages_are_negatives_whatever_people_and_pools_say(folder: Path, context: LabelContext):
    """d1 is the positive that people named and that the pool holds; users saw d2 and d3 alone."""
    (stage,) = ClickLabels(str(log(folder, "q1\td2\t100\t40\t1\nq1\td3\t90\t1\t2\nq1\td5\t0\t0\t3\n"))).stages(context)
    (example,) = stage.examples
    assert (example.positives, example.negatives, example.ignored) == (("d2",), ("d3",), ())


def test_a_passage_that_nobody_clicked_is_never_positive(
    folder: Path, context: LabelContext, caplog: pytest.LogCaptureFixture
):
    """d3 was shown once, and the mean rate of the log stands in for what nobody knows of it."""
    lines = "q1\td2\t40\t8\t1\nq1\td3\t1\t0\t1\nq2\td2\t20\t18\t1\nq2\td4\t60\t2\t1\n"
    with caplog.at_level(logging.INFO):
        (stage,) = ClickLabels(str(log(folder, lines)), threshold=0.2).stages(context)
    first, second = stage.examples
    mean = 28 / 121
    assert (8 + 10 * mean) / 50 > 0.2 and first.utilities()["d2"] < 10 * mean / 11  # the once shown one has the greater rate
    assert (first.positives, first.negatives, first.ignored) == (("d2",), (), ("d3",))
    assert (second.positives, second.negatives) == (("d2",), ("d4",))
    assert "2 positives, 1 negatives, 1 passages shown too seldom to tell" in caplog.text


def test_of_clicked_passages_below_the_threshold_the_best_is_positive(folder: Path, context: LabelContext):
    lines = "q1\td2\t40\t4\t1\nq1\td4\t40\t2\t1\nq1\td3\t1\t0\t1\n"
    (stage,) = ClickLabels(str(log(folder, lines)), prior=1.0).stages(context)
    (example,) = stage.examples
    assert (example.positives, example.negatives, example.ignored) == (("d2",), ("d4", "d3"), ())


def test_without_positions_nothing_is_corrected_and_the_log_says_so(
    folder: Path, context: LabelContext, caplog: pytest.LogCaptureFixture
):
    (stage,) = ClickLabels(str(log(folder, "q1\td1\t10\t5\nq1\td2\t10\t1\nqx\td1\t1\t1\n")), prior=0).stages(context)
    assert stage.examples[0].utilities() == {"d1": 0.5, "d2": 0.1}
    assert "not corrected" in caplog.text
    ClickLabels(str(log(folder, "q1\td1\t10\t5\t2\nq1\td2\t10\t1\n"))).stages(context)
    assert "1 of 2 lines have no position (a fifth column) and count as shown first" in caplog.text


@pytest.mark.parametrize(
    ("line", "fault"),
    [("q1\td1\t10", "3 columns"), ("q1\td1\t1\t2", "clicks ≤ impressions"), ("q1\td1\t1\t1\t0", "position from 1"),
     ("q1\tdx\t1\t1", "'dx' is not in the corpus"), ("q1\td1\t1\tx", "whole numbers")],
)  # fmt: skip
def test_a_faulty_line_is_named(folder: Path, context: LabelContext, line: str, fault: str):
    with pytest.raises(DataError, match=fault) as error:
        read_clicks(log(folder, f"q1\td2\t5\t1\n{line}\n"), context.collection)
    assert "2" in str(error.value)


def test_a_broken_first_line_is_no_header(folder: Path, context: LabelContext):
    with pytest.raises(DataError, match=r":1: impressions, clicks, position are \['9.5', '1'\]; whole numbers"):
        read_clicks(log(folder, "q1\td1\t9.5\t1\n"), context.collection)


@pytest.mark.parametrize(
    "header", ["doc\tquery\timpressions\tclicks", "query\tdoc\tclicks\timpressions", "q\td\tposition\tclicks"]
)
def test_a_header_in_another_order_is_refused(folder: Path, context: LabelContext, header: str):
    with pytest.raises(DataError, match=rf":1: the header is {', '.join(header.split())}; query, doc, impressions, clicks"):
        read_clicks(log(folder, f"{header}\nq1\td1\t9\t9\n"), context.collection)


def test_a_log_of_another_split_is_refused(folder: Path, context: LabelContext):
    with pytest.raises(UserError, match="no query of .* has a click"):
        ClickLabels(str(log(folder, "qx\td1\t1\t1\nq1\td1\t5\t0\n"))).stages(context)
