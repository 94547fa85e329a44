"""What is asked of the sampler, and what comes back."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from illada.sample.caching import CACHING, Caching, Elastic
from illada.sample.policy import read_policy
from illada.sample.unmasking import UNMASKING, Unmasking

FinishReason = Literal["stop", "length", "context"]
CanvasKind = Literal["variable", "fixed"]
EndRule = Literal["free", "last", "never"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to fill masks with text.

    Raises:
        ValueError: a value outside its range, with the value and the range.
    """

    length: int = 128
    """The longest completion, in tokens."""
    canvas: CanvasKind = "variable"
    """variable: one block of masks at a time, until the text ends. fixed: all `length` masks from the beginning."""
    block_length: int = 32
    """Masks are filled block by block, left to right; within a block in any order. The last may be shorter."""
    steps: int | None = None
    """Forwards for all `length` tokens; None: one per token, the slowest and best."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these strings; one that looks like a special token is that token, too."""
    temperature: float = 0.0
    """0: the likeliest token. Above: Gumbel noise, in float64, on logits / temperature."""
    top_p: float = 1.0
    """At temperature > 0, choose among the likeliest tokens that together have this probability."""
    guidance: float = 0.0
    """w of classifier-free guidance: logits = unconditional + (w + 1) (conditional - unconditional); 0: none. The
    unconditional forward sees the prompt masked (LLaDA, arXiv 2502.09992, appendix A.2)."""
    unmasking: str = "low_confidence"
    """Which chosen tokens become text, as in `threshold,tau=0.8`: see `illada.sample.unmasking`."""
    caching: str = "none"
    """Which positions a forward computes anew, as in `delayed,refresh=4`: see `illada.sample.caching`."""
    blocks: int = 1
    """Blocks that are filled at once; the next one comes into sight when the first of them is full."""
    thinking_marker: str = "</think>"
    """What closes a model's thoughts: see `illada.sample.thinking`."""
    thinking_strength: float = 0.0
    """How much the closing marker is favoured at the end of the budget, in logits; 0: not at all."""
    thinking_power: float = 3.0
    """How late: the strength grows with the progress to this power."""
    suppress: tuple[int, ...] = ()
    """Token ids that are never chosen and count in no confidence; [MASK] is always among them."""
    reveal_last: tuple[int, ...] = ()
    """Token ids that may be chosen, but have confidence 0 and count in no other's: they are revealed last."""
    end: EndRule = "free"
    """The end of text: free, a token like others; last, among `reveal_last`; never, among `suppress`. LLaDA's authors
    need both on a fixed canvas, because answers filled up with ends of text teach a model to end too surely."""
    seed: int = 0
    """Noise of this request; the same seed gives the same text in any batch."""

    def __post_init__(self) -> None:
        """Check every range."""
        for name in ("length", "block_length", "blocks"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.steps is not None and not 1 <= self.steps <= self.length:
            raise ValueError(
                f"steps must be between 1 and the length: got {self.steps} steps for {self.length} tokens, and every "
                "step reveals at least one"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        for name in ("temperature", "guidance", "thinking_strength", "thinking_power"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{name} must be 0 or more, got {value}")
        if "" in self.stop:
            raise ValueError("a stop string is empty: every text would end before it begins")
        if self.canvas not in get_args(CanvasKind):
            raise ValueError(f"canvas must be one of {', '.join(get_args(CanvasKind))}; got {self.canvas!r}")
        if self.end not in get_args(EndRule):
            raise ValueError(f"end must be one of {', '.join(get_args(EndRule))}; got {self.end!r}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must be a signed 64-bit integer, got {self.seed}")
        _, caching = self.unmasking_policy, self.caching_policy
        if self.guidance and isinstance(caching, Elastic):
            raise ValueError("caching elastic watches one forward, and guidance takes two: choose another caching")

    @property
    def unmasking_policy(self) -> Unmasking:
        """What `unmasking` describes."""
        return read_policy(self.unmasking, UNMASKING, kind="unmasking")

    @property
    def caching_policy(self) -> Caching:
        """What `caching` describes."""
        return read_policy(self.caching, CACHING, kind="caching")


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One finished request."""

    text: str
    tokens: tuple[int, ...]
    """Ids of the text: nothing after the end of text, no [MASK]. Where a stop string begins inside a token, the text
    holds the rest of that token's characters and these do not."""
    finish_reason: FinishReason
    """stop: the text ended, by an end of text or a stop string; length: its budget was used up; context: so was the
    model's context, which left less than `length`."""
    stop_string: str | None = None
    """The stop string that ended it."""
    prompt_tokens: int
    forwards: int
    """Forward passes that this request took part in; guidance runs two rows in one."""
    positions: int
    """Token positions that were computed for it, summed over its forwards; twice that with guidance."""
    seconds: float
    """Wall time from its first forward to its last."""
    revealed_at: tuple[int, ...]
    """The forward, counted from 1, at which each token became text."""

    @property
    def tokens_per_forward(self) -> float:
        """How many tokens of the text a forward wrote on average."""
        return len(self.tokens) / self.forwards if self.forwards else 0.0


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of a completion while it is being written."""

    text: str
    """What has become certain since the last chunk; all of them together are the completion's text."""
    provisional: str | None = None
    """The rest of the block as it stands, "░" where a mask is left; it may still change."""
    completion: Completion | None = None
    """The whole, with the last chunk."""
