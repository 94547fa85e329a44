"""How far a mean, and a difference of means, can be trusted: resampling, and the exact test for paired answers.

An interval by the percentiles of resampled means needs no assumption about what is averaged. For shares of right
answers `illada.evaluate.intervals` has the one of Wilson as well, which does not collapse where all answers are equal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from illada.evaluate.intervals import Interval
from illada.seeding import Stream

RESAMPLES = 10_000
_NUMBERS_AT_A_TIME = 1 << 22


def bootstrap_interval(
    groups: Sequence[Sequence[float]], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The percentile interval of the mean over groups of the mean within them (Efron, "Bootstrap methods", 1979).

    With one group it is that of the mean. Several, such as the subjects of a benchmark, weigh the same each, and each
    is resampled within itself.

    Raises:
        ValueError: there is no group, or an empty one.
    """
    means = resampled_means(groups, resamples=resamples, seed=seed)
    low, high = torch.quantile(means, torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64))
    return Interval(low=float(low), high=float(high))


def resampled_means(groups: Sequence[Sequence[float]], *, resamples: int, seed: int) -> Tensor:
    """[resamples], float64: the mean of group means of every resample.

    Raises:
        ValueError: there is no group, or an empty one.
    """
    if not groups or not all(groups):
        raise ValueError("an interval needs at least 1 number in every group, and at least 1 group")
    total = torch.zeros(resamples, dtype=torch.float64)
    for number, group in enumerate(groups):
        values = torch.tensor(group, dtype=torch.float64)
        stream = Stream(seed, f"bootstrap/{number}")
        step = max(1, _NUMBERS_AT_A_TIME // len(values))
        for start in range(0, resamples, step):
            index = torch.arange(start, min(resamples, start + step))
            chosen = (stream.uniform(index, len(values)) * len(values)).long().clamp_(max=len(values) - 1)
            total[index] += values[chosen].mean(dim=1)
    return total / len(groups)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better B did than A on the same examples."""

    value: float
    """mean of B - mean of A."""
    interval: Interval
    """95 %, by resampling the examples."""


def paired_difference(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Difference:
    """The mean difference of two systems on the same examples, the pairs resampled together.

    Raises:
        ValueError: there are no pairs, or not as many of one as of the other.
    """
    differences = [after - before for before, after in zip(first, second, strict=True)]
    interval = bootstrap_interval([differences], seed=seed)
    return Difference(value=math.fsum(differences) / len(differences), interval=interval)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value that two systems are right equally often (McNemar 1947, in its exact form).

    Only the examples on which they disagree matter: under the hypothesis each is a fair coin, so p is twice the tail of
    the binomial distribution, at most 1.

    Args:
        only_first: examples that only the first has right.
        only_second: examples that only the second has right.
    """
    count = only_first + only_second
    fewer = min(only_first, only_second)
    if count == 0:
        return 1.0
    # in logarithms: 2^-10,000 is no float
    terms = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) - count * math.log(2)
        for k in range(fewer + 1)
    ]
    largest = max(terms)
    tail = math.exp(largest) * math.fsum(math.exp(term - largest) for term in terms)
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected so that the chance of any false alarm stays what it was for one.

    Holm, "A simple sequentially rejective multiple test procedure" (1979): the k-th smallest of m is multiplied by
    m - k + 1, and none is smaller than the one before it.
    """
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    corrected = [0.0] * len(p_values)
    running = 0.0
    for rank, number in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = running
    return corrected
