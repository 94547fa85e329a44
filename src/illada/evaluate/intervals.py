"""How far a share of right answers can be trusted: an interval for the probability behind it."""

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Two probabilities, the lower first."""

    low: float
    high: float


def wilson_interval(correct: int, count: int, *, confidence: float = 0.95) -> Interval:
    """The score interval of Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    With n answers, the share p of them right, and z the normal quantile of (1 + confidence) / 2:

        (p + z²/2n ± z √(p (1 - p)/n + z²/4n²)) / (1 + z²/n)

    These are the probabilities π at which |p - π| is z standard deviations √(π (1 - π)/n). Unlike p ± z √(p (1 - p)/n)
    it stays within 0 and 1, and has a width where all answers are right or all are wrong.

    Raises:
        ValueError: there are no answers, more right ones than answers, or a confidence outside 0 .. 1.
    """
    if count < 1 or not 0 <= correct <= count:
        raise ValueError(f"an interval needs at least 1 answer and a share of them, got {correct} of {count}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be above 0 and below 1, got {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / count
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / scale
    # exactly 0 and 1 at the ends, whatever rounding leaves there
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == count else centre + half
    return Interval(low=low, high=high)
