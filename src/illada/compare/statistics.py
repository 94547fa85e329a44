"""What a few seeds allow to say: Student's t, for means and for paired differences, and the size of an effect."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from illada.evaluate.intervals import Interval

CONFIDENCE = 0.95


def t_tail(t: float, df: int) -> float:
    """P(|T| >= |t|) of Student's distribution with `df` degrees of freedom, in closed form.

    Abramowitz and Stegun, "Handbook of mathematical functions" (1964), 26.7.3 and 26.7.4, with θ = atan(|t| / √df).

    Raises:
        ValueError: fewer than 1 degree of freedom.
    """
    if df < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {df}")
    if math.isinf(t):
        return 0.0
    theta = math.atan(abs(t) / math.sqrt(df))
    cos, total, term = math.cos(theta), 0.0, 1.0
    if df % 2:
        if df > 1:
            term = cos
            total = term
            for k in range(3, df - 1, 2):
                term *= cos * cos * (k - 1) / k
                total += term
        inside = 2 / math.pi * (theta + math.sin(theta) * total)
    else:
        total = term
        for k in range(2, df - 1, 2):
            term *= cos * cos * (k - 1) / k
            total += term
        inside = math.sin(theta) * total
    return max(0.0, 1 - inside)


def t_quantile(df: int, confidence: float = CONFIDENCE) -> float:
    """The t that |T| exceeds with probability 1 - confidence, by bisection.

    Raises:
        ValueError: a confidence outside 0 .. 1, or fewer than 1 degree of freedom.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be above 0 and below 1, got {confidence}")
    low, high = 0.0, 1.0
    while t_tail(high, df) > 1 - confidence:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > 1 - confidence else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds."""

    value: float
    interval: Interval
    """95 %, Student's t; a single number has none, and its ends are the number itself."""
    count: int


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """The mean of one number per seed.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("a mean needs at least 1 number")
    value = fmean(values)
    half = 0.0
    if len(values) > 1:
        half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Mean(value=value, interval=Interval(low=value - half, high=value + half), count=len(values))


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How much one arm is above another, seed by seed."""

    value: float
    """The mean difference."""
    interval: Interval
    p_value: float
    """Two-sided, of the paired t-test."""
    effect: float | None
    """Hedges' g of paired differences: their mean over their standard deviation, corrected for few seeds. None where
    they do not differ from one another."""
    count: int


def paired(first: Sequence[float], second: Sequence[float], *, resolution: float = 0.0) -> Paired:
    """The difference `first` - `second`, where the n-th number of both has the n-th seed.

    `resolution` is the least standard deviation that is believed of the differences: that of a share among N
    questions is not below 1/N, however well three seeds agree.

    Raises:
        ValueError: fewer than 2 seeds, or not as many of one as of the other.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    count = len(differences)
    if count < 2:
        raise ValueError(f"a paired difference needs at least 2 seeds, got {count}")
    value, spread = fmean(differences), max(stdev(differences), resolution)
    error, df = spread / math.sqrt(count), count - 1
    t = value / error if error else math.copysign(math.inf, value) if value else 0.0
    half = t_quantile(df) * error
    # Hedges, "Distribution theory for Glass's estimator of effect size" (1981), the usual approximation
    correction = 1 - 3 / (4 * df - 1)
    effect = correction * value / spread if spread else None
    interval = Interval(low=value - half, high=value + half)
    return Paired(value=value, interval=interval, p_value=t_tail(t, df), effect=effect, count=count)


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """y = e^intercept x^slope, fitted to logarithms by least squares."""

    slope: float
    interval: Interval
    """Of the slope, 95 %, Student's t."""
    intercept: float
    count: int

    def at(self, x: float) -> float:
        """The fitted y."""
        return math.exp(self.intercept + self.slope * math.log(x))


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """Fit log y = intercept + slope log x.

    Raises:
        ValueError: fewer than 3 points, equal x, or numbers that are not above 0.
    """
    if len(x) < 3 or len(set(x)) < 2 or min(*x, *y) <= 0:
        raise ValueError(f"a power law needs at least 3 points above 0 at different x, got x {list(x)}, y {list(y)}")
    across, up = [math.log(value) for value in x], [math.log(value) for value in y]
    centre, middle = fmean(across), fmean(up)
    spread = math.fsum((value - centre) ** 2 for value in across)
    slope = math.fsum((a - centre) * (b - middle) for a, b in zip(across, up, strict=True)) / spread
    intercept = middle - slope * centre
    rest = math.fsum((b - intercept - slope * a) ** 2 for a, b in zip(across, up, strict=True))
    half = t_quantile(len(x) - 2) * math.sqrt(rest / (len(x) - 2) / spread)
    return PowerLaw(
        slope=slope, interval=Interval(low=slope - half, high=slope + half), intercept=intercept, count=len(x)
    )
