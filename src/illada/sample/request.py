"""What is asked of the sampler, and what comes back."""

import math
from dataclasses import dataclass
from typing import Literal

from illada.sample.unmasking import UNMASKING, Unmasking

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to fill a canvas of masks.

    Raises:
        ValueError: a value outside its range, with the value and the range.
    """

    length: int = 128
    """Masked positions to fill: the longest completion, in tokens."""
    block_length: int = 32
    """The canvas is filled block by block, left to right; within a block in any order. The last may be shorter."""
    steps: int | None = None
    """Forwards for the whole canvas; None: one per token, the slowest and best."""
    temperature: float = 0.0
    """0: the likeliest token. Above: Gumbel noise, in float64, on logits / temperature."""
    top_p: float = 1.0
    """At temperature > 0, choose among the likeliest tokens that together have this probability."""
    guidance: float = 0.0
    """w of classifier-free guidance: logits = unconditional + (w + 1) (conditional - unconditional); 0: none. The
    unconditional forward sees the prompt masked (LLaDA, arXiv 2502.09992, appendix A.2)."""
    unmasking: str = "low_confidence"
    """Which chosen tokens become text first: see `illada.sample.unmasking`."""
    suppress: tuple[int, ...] = ()
    """Token ids that are never chosen and count in no confidence; [MASK] is always among them."""
    seed: int = 0
    """Noise of this request; the same seed gives the same text in any batch."""

    def __post_init__(self) -> None:
        """Check every range."""
        for name in ("length", "block_length"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.steps is not None and not 1 <= self.steps <= self.length:
            raise ValueError(
                f"steps must be between 1 and the length: got {self.steps} steps for {self.length} tokens, and every "
                "step reveals at least one"
            )
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ValueError(f"guidance must be 0 or more, got {self.guidance}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must be a signed 64-bit integer, got {self.seed}")
        if self.unmasking not in UNMASKING:
            raise ValueError(f"unmasking must be one of {', '.join(UNMASKING)}; got {self.unmasking!r}")

    @property
    def policy(self) -> Unmasking:
        """The unmasking policy by its name."""
        return UNMASKING[self.unmasking]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One finished request."""

    text: str
    tokens: tuple[int, ...]
    """Ids of the text: nothing after the end of text, no [MASK]."""
    finish_reason: FinishReason
    """stop: the model ended the text; length: the canvas was full."""
    prompt_tokens: int
    forwards: int
    """Forward passes that this request took part in; guidance runs two rows in one."""
    seconds: float
    """Wall time of the batch it was in."""
    revealed_at: tuple[int, ...]
    """The forward, counted from 1, at which each token became text."""
