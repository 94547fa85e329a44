"""Intervals, differences and p-values, each by a second route."""

import math
from fractions import Fraction

import pytest
import torch

from illada.evaluate.bootstrap import bootstrap_interval, holm, mcnemar, paired_difference, resampled_means


def exact_mcnemar(only_first, only_second):
    """In whole numbers: both tails of fair coins."""
    count = only_first + only_second
    tail = sum(math.comb(count, k) for k in range(min(only_first, only_second) + 1))
    return float(min(Fraction(1), 2 * Fraction(tail, 2**count)))


def test_resampled_means_have_the_mean_and_the_spread_of_the_theory():
    values = [0.0, 1.0, 1.0, 3.0, 10.0]
    means = resampled_means([values], resamples=20_000, seed=0)
    mean = sum(values) / 5
    variance = sum((value - mean) ** 2 for value in values) / 5 / 5
    assert float(means.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / 20_000))
    assert float(means.var()) == pytest.approx(variance, rel=0.05)


def test_groups_weigh_the_same_and_are_resampled_within_themselves():
    means = resampled_means([[0.0] * 9, [1.0]], resamples=50, seed=0)
    assert means.tolist() == [0.5] * 50


def test_the_interval_is_that_of_the_percentiles():
    means = resampled_means([[0.0, 1.0, 1.0, 0.0, 1.0]], resamples=10_000, seed=0).sort().values
    interval = bootstrap_interval([[0.0, 1.0, 1.0, 0.0, 1.0]])
    assert interval.low == pytest.approx(float(means[249]), abs=1e-9)
    assert interval.high == pytest.approx(float(means[9749]), abs=1e-9)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for number in range(200):
        sample = (torch.rand(80, generator=generator) < 0.3).double().tolist()
        interval = bootstrap_interval([sample], resamples=1000, seed=number)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_seed_gives_the_same_interval_again():
    assert bootstrap_interval([[0.0, 1.0, 0.5]]) == bootstrap_interval([[0.0, 1.0, 0.5]])
    assert resampled_means([[0.0, 1.0, 0.5]], resamples=9, seed=1).tolist() != (
        resampled_means([[0.0, 1.0, 0.5]], resamples=9, seed=2).tolist()
    )


def test_many_values_are_resampled_in_parts(monkeypatch):
    whole = resampled_means([[0.0, 1.0, 4.0]], resamples=100, seed=0)
    monkeypatch.setattr("illada.evaluate.bootstrap._NUMBERS_AT_A_TIME", 10)
    assert torch.equal(resampled_means([[0.0, 1.0, 4.0]], resamples=100, seed=0), whole)


@pytest.mark.parametrize("groups", [[], [[]], [[1.0], []]])
def test_nothing_to_resample(groups):
    with pytest.raises(ValueError, match="at least 1"):
        bootstrap_interval(groups)


def test_a_paired_difference_sees_what_the_pairs_share():
    easy = [1.0] * 50 + [0.0] * 50
    better = [1.0] * 55 + [0.0] * 45
    found = paired_difference(easy, better)
    assert found.value == pytest.approx(0.05)
    assert 0 < found.interval.low < 0.05 < found.interval.high < 0.11
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 0.0])


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (0, 6), (5, 9), (10, 10), (3, 40), (300, 340)])
def test_mcnemar_equals_whole_numbers(first, second):
    assert mcnemar(first, second) == pytest.approx(exact_mcnemar(first, second), rel=1e-9)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_of_many():
    """Against the normal distribution with the correction for continuity."""
    z = (abs(5100 - 4900) - 1) / math.sqrt(10_000)
    assert mcnemar(4900, 5100) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
