"""Which chosen tokens become text in a step, and which stay masked.

Every policy is a frozen dataclass with one method. It sees the confidence in the chosen token of every position of
the window and reveals exactly `count` masked positions of each row.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Confidence = Float[Tensor, "rows window"]
"""The model's probability of the token it chose, at each position of the window."""

Window = Bool[Tensor, "rows window"]
"""True at some positions of the window."""


@runtime_checkable
class Unmasking(Protocol):
    """Chooses the positions to reveal."""

    def select(
        self, confidence: Confidence, *, masked: Window, count: Int[Tensor, " rows"], uniform: Confidence
    ) -> Window:
        """`count` of the masked positions of each row; `uniform` is noise in [0, 1), one number per position."""
        ...


@dataclass(frozen=True, kw_only=True)
class LowConfidence:
    """Reveal the most confident, keep the low-confidence ones masked: MaskGIT (arXiv 2202.04200), LLaDA's default."""

    def select(
        self, confidence: Confidence, *, masked: Window, count: Int[Tensor, " rows"], uniform: Confidence
    ) -> Window:
        """The `count` highest confidences; among equals, the left one."""
        del uniform
        return highest(confidence, masked=masked, count=count)


@dataclass(frozen=True, kw_only=True)
class Random:
    """Reveal positions at random: the reverse process of the diffusion as it stands (LLaDA, section 2.4)."""

    def select(
        self, confidence: Confidence, *, masked: Window, count: Int[Tensor, " rows"], uniform: Confidence
    ) -> Window:
        """The `count` highest random numbers."""
        del confidence
        return highest(uniform, masked=masked, count=count)


UNMASKING: dict[str, Unmasking] = {"low_confidence": LowConfidence(), "random": Random()}
"""The policies by name."""


def highest(priority: Float[Tensor, "rows window"], *, masked: Window, count: Int[Tensor, " rows"]) -> Window:
    """The `count` masked positions of highest priority in each row; among equals, the left one.

    A stable sort, because topk promises no order among equals, and because every row has a count of its own.
    """
    order = torch.where(masked, priority, -1.0).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(dim=1) < count[:, None]) & masked
