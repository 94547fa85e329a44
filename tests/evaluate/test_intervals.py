"""Wilson's interval against what defines it, and against how often it should hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from illada.evaluate.intervals import wilson_interval

Z = 1.959963984540054  # the table's quantile of 0.975


def bisected(correct: int, count: int, *, z: float, upper: bool) -> float:
    """The probability on one side of the share at which the share is z standard deviations away, by halving."""
    share = correct / count
    near, far = share, 1.0 if upper else 0.0
    for _ in range(200):
        middle = (near + far) / 2
        if (share - middle) ** 2 > z * z * middle * (1 - middle) / count:
            far = middle
        else:
            near = middle
    return (near + far) / 2


@given(count=st.integers(1, 3000), data=st.data())
def test_at_its_ends_the_share_is_as_far_away_as_the_quantile_says(count, data):
    correct = data.draw(st.integers(0, count))
    interval = wilson_interval(correct, count)
    assert interval.low == pytest.approx(bisected(correct, count, z=Z, upper=False), abs=1e-9)
    assert interval.high == pytest.approx(bisected(correct, count, z=Z, upper=True), abs=1e-9)
    assert 0 <= interval.low <= correct / count <= interval.high <= 1
    assert interval.low < interval.high


@pytest.mark.parametrize(
    ("confidence", "z"), [(0.6826894921370859, 1.0), (0.9, 1.6448536269514722), (0.99, 2.5758293035489004)]
)
def test_the_quantile_is_that_of_the_confidence(confidence, z):
    interval = wilson_interval(30, 100, confidence=confidence)
    assert interval.low == pytest.approx(bisected(30, 100, z=z, upper=False), abs=1e-9)
    assert interval.high == pytest.approx(bisected(30, 100, z=z, upper=True), abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 7, 49, 200, 12345])
def test_the_ends_are_exact_where_all_are_right_or_wrong(count):
    none, every = wilson_interval(0, count), wilson_interval(count, count)
    assert (none.low, every.high) == (0.0, 1.0)
    # with p = 0 the formula is z²/n / (1 + z²/n)
    assert none.high == pytest.approx(Z**2 / (count + Z**2))
    assert every.low == pytest.approx(1 - none.high)


@given(count=st.integers(1, 500), data=st.data())
def test_right_and_wrong_are_mirror_images(count, data):
    correct = data.draw(st.integers(0, count))
    one, other = wilson_interval(correct, count), wilson_interval(count - correct, count)
    assert one.low == pytest.approx(1 - other.high)


def test_more_answers_say_more():
    widths = [wilson_interval(count // 2, count) for count in (10, 100, 1000)]
    widths = [interval.high - interval.low for interval in widths]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.97])
def test_it_holds_the_probability_about_as_often_as_it_says(probability):
    """The exact chance, summed over all outcomes of 200 answers."""
    chance = 0.0
    for correct in range(201):
        interval = wilson_interval(correct, 200)
        if interval.low <= probability <= interval.high:
            chance += math.comb(200, correct) * probability**correct * (1 - probability) ** (200 - correct)
    assert chance == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("correct", "count"), [(0, 0), (-1, 5), (6, 5), (0, -1)])
def test_shares_that_are_none_are_refused(correct, count):
    with pytest.raises(ValueError, match=f"got {correct} of {count}"):
        wilson_interval(correct, count)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 95.0, math.nan])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence must be above 0 and below 1"):
        wilson_interval(1, 2, confidence=confidence)
