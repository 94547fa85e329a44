"""The noise schedule: alpha(t), the probability that a token is still visible at time t.

t runs from 0 (clean) to 1 (all masked), and a position is masked with probability 1 - alpha(t). The bound on the
likelihood does not depend on the schedule (Sahoo et al., MDLM, arXiv 2406.07524); the variance of its estimate does.
The three schedules here are among those of Shi et al., MD4, arXiv 2406.04329.
"""

import math
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Times: TypeAlias = Float[Tensor, "*shape"]
"""Times, or what a schedule makes of them, in a tensor of any shape."""


@runtime_checkable
class Schedule(Protocol):
    """alpha(t): 1 at t = 0, falling to 0 at t = 1."""

    def alpha(self, t: Times) -> Times:
        """The probability that a token is visible at time t."""
        ...

    def alpha_prime(self, t: Times) -> Times:
        """The derivative of alpha with respect to t (never positive)."""
        ...

    def time(self, alpha: Times) -> Times:
        """The time at which the visible part is `alpha`: the inverse of `alpha`."""
        ...


@dataclass(frozen=True, kw_only=True)
class LinearSchedule:
    """alpha = 1 - t: t itself is the masking probability (LLaDA, arXiv 2502.09992, and iLLaDA)."""

    def alpha(self, t: Times) -> Times:
        """1 - t."""
        return 1 - t

    def alpha_prime(self, t: Times) -> Times:
        """-1."""
        return torch.full_like(t, -1.0)

    def time(self, alpha: Times) -> Times:
        """1 - alpha."""
        return 1 - alpha


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """alpha = 1 - cos(π/2 (1 - t)): few steps where almost all is masked, many where little is (as in MaskGIT)."""

    def alpha(self, t: Times) -> Times:
        """1 - sin(π t / 2), the same function in a form that is exactly 1 at t = 0."""
        return 1 - torch.sin(math.pi / 2 * t)

    def alpha_prime(self, t: Times) -> Times:
        """-(π/2) cos(π t / 2)."""
        return -math.pi / 2 * torch.cos(math.pi / 2 * t)

    def time(self, alpha: Times) -> Times:
        """(2/π) arcsin(1 - alpha)."""
        return 2 / math.pi * torch.asin(1 - alpha)


@dataclass(frozen=True, kw_only=True)
class PolynomialSchedule:
    """alpha = 1 - t^power; with a power above 1 the estimate of the bound has a finite variance.

    The squared weight of a masked token, times the chance that it is masked, is (alpha')² / (1 - alpha). Its integral
    diverges like log(1/t) at t -> 0 for the linear and the cosine schedule; here it is power² / (power - 1).
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        if not self.power > 0:
            raise ValueError(f"power must be above 0, not {self.power}: 1 is the linear schedule, 2 the default")

    def alpha(self, t: Times) -> Times:
        """1 - t^power."""
        return 1 - t**self.power

    def alpha_prime(self, t: Times) -> Times:
        """-power t^(power - 1)."""
        return -self.power * t ** (self.power - 1)

    def time(self, alpha: Times) -> Times:
        """(1 - alpha)^(1/power)."""
        return (1 - alpha) ** (1 / self.power)


def loss_weight(schedule: Schedule, t: Times) -> Times:
    """The weight of a masked token's cross-entropy at time t, -alpha'(t) / (1 - alpha(t)).

    This is the weight of the continuous-time bound (MDLM, arXiv 2406.07524); the linear schedule gives LLaDA's 1/t.

    Args:
        schedule: alpha(t).
        t: Times in (0, 1], any shape.

    Returns:
        The weights, in the shape and dtype of `t`.
    """
    # 1 - alpha cancels near t = 0, just where the weight is large: in float32 it would lose half of its digits
    exact = t.to(torch.float64)
    return (-schedule.alpha_prime(exact) / (1 - schedule.alpha(exact))).to(t.dtype)
