"""Learning-rate schedules: the rate of a step as a function of the step, and a detector of plateaus."""

import math
from dataclasses import dataclass, field

from illada.config import register_union


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """When a smoothed loss counts as no longer falling."""

    smoothing: float = 0.98
    """Weight of the past in the running mean, per reading of the loss."""
    patience: int = 50
    """Readings without an improvement."""
    min_improvement: float = 1e-3
    """Nats per token below the best so far that count as an improvement."""

    def __post_init__(self) -> None:
        """Refuse values that could never or would always fire."""
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing must be in [0, 1), got {self.smoothing}")
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1 reading, got {self.patience}")


@dataclass(kw_only=True)
class PlateauDetector:
    """Follows the loss and notices when it stops falling; its fields are its state, plain numbers."""

    smoothed: float | None = None
    best: float | None = None
    stale: int = 0
    """Readings since the best."""

    def read(self, loss: float, rule: Plateau) -> bool:
        """Take one reading; True when the loss has stopped falling."""
        past = loss if self.smoothed is None else self.smoothed
        self.smoothed = rule.smoothing * past + (1 - rule.smoothing) * loss
        if self.best is None or self.smoothed < self.best - rule.min_improvement:
            self.best, self.stale = self.smoothed, 0
        else:
            self.stale += 1
        return self.stale >= rule.patience


@dataclass(frozen=True, kw_only=True)
class WarmupConstantCosine:
    """Linear warm-up, constant, cosine to a floor: iLLaDA's schedule (arXiv 2606.25331, section 2.1).

    The cosine begins at `decay_start`, or, where `plateau` is given, when the loss stops falling if that is sooner.
    """

    peak: float = 2e-4
    floor: float = 5e-6
    warmup_steps: int = 100
    decay_start: int | None = None
    """Step at which the cosine begins; None: with the last `decay_fraction` of the run."""
    decay_fraction: float = 0.3
    plateau: Plateau | None = None

    def __post_init__(self) -> None:
        """Refuse rates that do not descend and fractions outside [0, 1]."""
        _check_rates(self.peak, self.floor, self.warmup_steps)
        _check_fraction("decay_fraction", self.decay_fraction)
        if self.decay_start is not None and self.decay_start < 0:
            raise ValueError(f"decay_start must be a step, 0 or more, got {self.decay_start}")

    def rate(self, step: int, *, steps: int, plateau_at: int | None = None) -> float:
        """The learning rate of step 0 .. steps-1; `plateau_at` is the step at which the loss stopped falling."""
        start = round(steps * (1 - self.decay_fraction)) if self.decay_start is None else self.decay_start
        start = start if plateau_at is None else min(start, plateau_at)
        warm = self.peak * min(1.0, (step + 1) / max(1, self.warmup_steps))
        if step < start:
            return warm
        progress = min(1.0, (step - start + 1) / max(1, steps - start))
        # a short run, or an early plateau, decays before it is warm: the rate must not leap to where it never was
        return min(warm, self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * progress)) / 2)


@dataclass(frozen=True, kw_only=True)
class StepDowns:
    """Linear warm-up, constant levels, a last linear descent: LLaDA's schedule (arXiv 2502.09992, section 2.2).

    The defaults are the paper's run: 4e-4 until 1.2 of 2.3 T tokens, 1e-4 for 0.8 T, then linear to 1e-5.
    """

    warmup_steps: int = 2000
    levels: tuple[tuple[float, float], ...] = ((0.0, 4e-4), (1.2 / 2.3, 1e-4))
    """(fraction of the run from which it holds, rate), in order, the first from 0."""
    final_fraction: float = 0.3 / 2.3
    """Share of the run, at its end, in which the last level descends to the floor."""
    floor: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse levels out of order."""
        starts = [start for start, _ in self.levels]
        if not starts or starts[0] != 0 or starts != sorted(starts):
            raise ValueError(f"levels must begin at fraction 0 and go upwards, got fractions {starts}")
        _check_rates(self.levels[-1][1], self.floor, self.warmup_steps)
        _check_fraction("final_fraction", self.final_fraction)

    def rate(self, step: int, *, steps: int, plateau_at: int | None = None) -> float:  # noqa: ARG002  # one signature for all schedules
        """The learning rate of step 0 .. steps-1."""
        level = next(rate for start, rate in reversed(self.levels) if step >= start * steps)
        if step < self.warmup_steps:
            return level * (step + 1) / self.warmup_steps
        final_start = round(steps * (1 - self.final_fraction))
        if step < final_start:
            return level
        return level + (self.floor - level) * min(1.0, (step - final_start + 1) / max(1, steps - final_start))


LearningRate = WarmupConstantCosine | StepDowns
register_union(LearningRate)


@dataclass(kw_only=True)
class LearningRateState:
    """What a schedule must remember across a resume."""

    detector: PlateauDetector = field(default_factory=PlateauDetector)
    plateau_at: int | None = None

    def read(self, loss: float, *, step: int, schedule: LearningRate) -> None:
        """Take the mean loss of the steps up to `step`, and note when it stops falling."""
        rule = schedule.plateau if isinstance(schedule, WarmupConstantCosine) else None
        if rule is not None and self.plateau_at is None and self.detector.read(loss, rule):
            self.plateau_at = step


def _check_rates(peak: float, floor: float, warmup_steps: int) -> None:
    if not 0 <= floor <= peak or peak == 0:
        raise ValueError(f"the learning rate must descend to its floor: peak {peak}, floor {floor}")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps must be 0 or more, got {warmup_steps}")


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")
