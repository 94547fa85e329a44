"""One plain sentence per claim: what the data allow to say, and what they do not."""

import math
from dataclasses import dataclass
from typing import Literal

from illada.compare.statistics import Mean, Paired
from illada.compare.study import Claim

LEVEL = 0.025
"""A claim counts as decided if its corrected p-value is below. At the usual 0.05, five of a hundred studies of nothing
would find something on average, and often more than five; at half of that, hardly ever more."""

Outcome = Literal["shown", "contradicted", "open", "at the end of the scale"]

_LOWER_IS_BETTER = ("nats", "forwards", "positions", "mflops")
_EDGE = 0.02


def is_share(measure: str) -> bool:
    """A share of right answers, told in per cent."""
    return measure.startswith(("exact", "choice"))


def lower_is_better(measure: str) -> bool:
    """A cost or a loss."""
    return measure.startswith(_LOWER_IS_BETTER)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim and what became of it."""

    claim: Claim
    better: Mean
    worse: Mean
    difference: Paired
    """better - worse, turned so that above 0 is for the claim."""
    corrected: float
    """The p-value, corrected for the number of claims."""

    @property
    def outcome(self) -> Outcome:
        """In one word."""
        if is_share(self.claim.measure):
            values = (self.better.value, self.worse.value)
            if max(values) <= _EDGE or min(values) >= 1 - _EDGE:
                return "at the end of the scale"
        if self.corrected >= LEVEL:
            return "open"
        return "shown" if self.difference.value > 0 else "contradicted"

    @property
    def sentence(self) -> str:
        """For people."""
        claim, gap = self.claim, self.difference
        measure = claim.measure
        means = f"{told(measure, self.better.value)} against {told(measure, self.worse.value)}"
        # an interval of few seeds may reach further than shares can differ
        least, largest = (-1.0, 1.0) if is_share(measure) else (-math.inf, math.inf)
        low, high = max(least, gap.interval.low), min(largest, gap.interval.high)
        width = f"{gap_told(measure, gap.value)}, 95 % from {gap_told(measure, low)} to {gap_told(measure, high)}"
        facts = f"{measure}: {means}, a difference of {width}; corrected {p_told(self.corrected)}, {gap.count} seeds"
        if self.outcome == "shown":
            return f"Shown at this scale: {claim.says} ({facts})."
        if self.outcome == "contradicted":
            return f"The opposite is shown at this scale. The claim was: {claim.says} ({facts})."
        if self.outcome == "at the end of the scale":
            return f"Nothing can be said of this: {claim.says}. Both arms are at the end of the scale ({facts})."
        most = gap_told(measure, max(abs(low), abs(high))).removeprefix("+")
        return f"Not decided: {claim.says} ({facts}). Differences of up to {most} are not excluded."


def told(measure: str, value: float) -> str:
    """A number as people read it."""
    if is_share(measure):
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def gap_told(measure: str, value: float) -> str:
    """A difference."""
    return f"{100 * value:+.1f} points" if is_share(measure) else f"{value:+.3f}"


def p_told(value: float) -> str:
    """A corrected p-value."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
