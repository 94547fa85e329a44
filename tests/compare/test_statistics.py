"""Student's t, paired differences and power laws, each by another route."""

import math
from statistics import fmean, stdev

import pytest

from illada.compare.statistics import mean_over_seeds, paired, power_law, t_quantile, t_tail


def density(t: float, df: int) -> float:
    constant = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
    return constant * (1 + t * t / df) ** (-(df + 1) / 2)


def integrated_tail(t: float, df: int, pieces: int = 4000) -> float:
    """2 times the area beyond |t|, by Simpson's rule on the middle."""
    width = abs(t) / pieces
    heights = [density(number * width, df) for number in range(pieces + 1)]
    inside = heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
    return 1 - 2 * inside * width / 3


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 6, 9, 12, 29])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 7.0])
def test_the_tail_is_the_area_under_the_density(t, df):
    assert t_tail(t, df) == pytest.approx(integrated_tail(t, df), abs=1e-8)
    assert t_tail(-t, df) == t_tail(t, df)


@pytest.mark.parametrize(
    ("df", "confidence", "value"),
    [(1, 0.95, 12.7062), (2, 0.95, 4.30265), (4, 0.95, 2.77645), (9, 0.95, 2.26216), (4, 0.99, 4.60409)],
)
def test_quantiles_are_those_of_printed_tables(df, confidence, value):
    assert t_quantile(df, confidence) == pytest.approx(value, abs=1e-4)


def test_the_mean_has_students_interval():
    mean = mean_over_seeds([1.0, 2.0, 6.0])
    half = 4.30265 * stdev([1, 2, 6]) / math.sqrt(3)
    assert (mean.value, mean.count) == (3.0, 3)
    assert mean.interval.low == pytest.approx(3 - half, abs=1e-4)
    assert mean.interval.high == pytest.approx(3 + half, abs=1e-4)
    assert mean_over_seeds([0.5]).interval.low == 0.5


def test_a_paired_difference_takes_what_seeds_have_in_common_away():
    first, second = [0.50, 0.70, 0.30, 0.61], [0.40, 0.58, 0.21, 0.50]
    found = paired(first, second)
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    t = fmean(gaps) / (stdev(gaps) / 2)
    assert found.value == pytest.approx(fmean(gaps))
    assert found.p_value == pytest.approx(integrated_tail(t, 3), abs=1e-7)
    assert found.effect == pytest.approx((1 - 3 / 11) * fmean(gaps) / stdev(gaps))
    # unpaired, the spread of the seeds would hide it: the arms' own intervals overlap widely
    assert found.p_value < 0.01
    assert mean_over_seeds(second).interval.high > mean_over_seeds(first).interval.low


def test_the_interval_of_a_difference_excludes_0_exactly_where_p_is_below_5_percent():
    for shift in (0.02, 0.05, 0.08, 0.2, -0.09):
        found = paired([shift + noise for noise in (0.03, -0.02, 0.01)], [0.0, 0.0, 0.0])
        assert (found.interval.low > 0 or found.interval.high < 0) == (found.p_value < 0.05)


def test_shares_are_not_believed_to_agree_better_than_by_one_answer():
    assert paired([0.5, 0.5, 0.5], [0.25, 0.25, 0.25]).p_value == 0.0
    with_resolution = paired([0.5, 0.5, 0.5], [0.49, 0.49, 0.49], resolution=0.01)
    assert with_resolution.p_value > 0.05


def test_equal_arms_differ_by_nothing():
    same = paired([0.25, 0.5], [0.25, 0.5])
    assert (same.value, same.p_value, same.effect) == (0.0, 1.0, None)


def test_a_power_law_is_found_again_and_its_interval_holds_it():
    x = [1e9, 1e10, 1e11, 1e12]
    exact = power_law(x, [3 * value**-0.07 for value in x])
    assert exact.slope == pytest.approx(-0.07)
    assert exact.at(1e11) == pytest.approx(3 * 1e11**-0.07)
    noisy = power_law(x, [3 * value**-0.07 * f for value, f in zip(x, (1.02, 0.99, 0.98, 1.01), strict=True)])
    assert noisy.interval.low < -0.07 < noisy.interval.high
    assert noisy.interval.high - noisy.interval.low > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired([1.0], [2.0]), "at least 2 seeds, got 1"),
        (lambda: mean_over_seeds([]), "at least 1 number"),
        (lambda: t_tail(1.0, 0), "at least 1 degree of freedom, got 0"),
        (lambda: t_quantile(3, 1.0), "above 0 and below 1, got 1.0"),
        (lambda: power_law([1.0, 2.0], [1.0, 2.0]), "at least 3 points"),
        (lambda: power_law([1.0, 2.0, 0.0], [1.0, 2.0, 3.0]), "above 0"),
    ],
)
def test_what_cannot_be_computed_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
