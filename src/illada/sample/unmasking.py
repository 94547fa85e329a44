"""Which chosen tokens become text in a step, and which stay masked.

Every policy is a frozen dataclass with one method: it sees the block that each row is filling, and says which of its
positions hold text after the step. Those that reveal a planned number take it from `count`; the others reveal as many
as they trust, and at least that number, so that every policy comes to an end with no mask left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Scores = Float[Tensor, "rows window"]
"""One number per position of the window."""

Window = Bool[Tensor, "rows window"]
"""True at some positions of the window."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """What a policy sees: the positions that each row is filling, and what the model says of them.

    Positions that are neither masked nor settled pad shorter rows.
    """

    masked: Window
    """A hole that is still open."""
    settled: Window
    """A hole that holds text."""
    count: Int[Tensor, " rows"]
    """How many positions the plan reveals in this step; 0 for a row that waits."""
    confidence: Scores
    """The model's probability of the token: of the chosen one where masked; where settled, of the one that became text,
    as it was then."""
    logits: Float[Tensor, "masked vocab"]
    """About the masked positions, row by row: -inf for suppressed tokens."""
    noise: Callable[[], Scores]
    """Makes `uniform`."""

    @cached_property
    def uniform(self) -> Scores:
        """Noise in [0, 1), addressed by the request's seed, the step and the hole."""
        return self.noise()

    @cached_property
    def entropy(self) -> Scores:
        """Of the model's distribution, in nats; 0 where nothing is masked."""
        return self.spread(entropy_of(self.logits))

    @cached_property
    def margin(self) -> Scores:
        """Probability of the likeliest token less that of the second; 0 where nothing is masked."""
        first, second = self.logits.softmax(-1).topk(2).values.unbind(-1)
        return self.spread(first - second)

    def spread(self, values: Float[Tensor, " masked"]) -> Scores:
        """One number per masked position, in its place in the window."""
        return torch.zeros_like(self.confidence).masked_scatter(self.masked, values.to(self.confidence.dtype))

    def reveal(self, chosen: Window) -> Window:
        """What holds text if `chosen` does from now on, besides what did."""
        return self.settled | chosen

    def first(self, priority: Scores) -> Window:
        """The `count` masked positions of highest priority."""
        return highest(priority, among=self.masked, count=self.count)


@runtime_checkable
class Unmasking(Protocol):
    """Chooses the positions that hold text."""

    def select(self, block: Block) -> Window:
        """The positions of the window that hold text after this step.

        Leaving out a settled one masks it again. A policy that does so must settle the whole block with the last
        planned step: `count` more than are settled now, in every step.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LowConfidence:
    """Reveal the most confident, keep the low-confidence ones masked: MaskGIT (arXiv 2202.04200), LLaDA's default."""

    def select(self, block: Block) -> Window:
        """The `count` highest confidences; among equals, the left one."""
        return block.reveal(block.first(block.confidence))


@dataclass(frozen=True, kw_only=True)
class Random:
    """Reveal positions at random: the reverse process of the diffusion as it stands (LLaDA, section 2.4)."""

    def select(self, block: Block) -> Window:
        """The `count` highest random numbers."""
        return block.reveal(block.first(block.uniform))


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """Reveal where the distribution is narrowest (Dream, arXiv 2508.15487)."""

    def select(self, block: Block) -> Window:
        """The `count` lowest entropies."""
        return block.reveal(block.first(-block.entropy))


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Reveal where the likeliest token is furthest ahead of the second (Kim et al., arXiv 2502.06768)."""

    def select(self, block: Block) -> Window:
        """The `count` largest margins."""
        return block.reveal(block.first(block.margin))


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Reveal all that is sure enough, and at least the planned number (Fast-dLLM, arXiv 2505.22618)."""

    tau: float = 0.9
    """Confidence, in (0, 1]."""

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 < self.tau <= 1:
            raise ValueError(f"tau of threshold must be above 0 and at most 1, got {self.tau}")

    def select(self, block: Block) -> Window:
        """Every confidence from `tau` on."""
        return block.reveal(block.first(block.confidence) | (block.masked & (block.confidence >= self.tau)))


@dataclass(frozen=True, kw_only=True)
class Factor:
    """Reveal n at once while (n + 1)(1 - c_n) < factor, c_n the n-th highest confidence (Fast-dLLM).

    The more are revealed together, the surer the last of them has to be: then greedy choices one by one and all at once
    agree.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        """Check the range."""
        if not self.factor > 0:
            raise ValueError(f"factor must be above 0, got {self.factor}")

    def select(self, block: Block) -> Window:
        """The longest run of confidences, from the highest down, that keeps the rule."""
        ordered = torch.where(block.masked, block.confidence, -1.0).sort(dim=1, descending=True, stable=True).values
        rank = torch.arange(1, ordered.shape[1] + 1, device=ordered.device)
        keeps = (rank + 1) * (1 - ordered) < self.factor
        trusted = keeps.int().cumprod(1).sum(1)
        return block.reveal(highest(block.confidence, among=block.masked, count=torch.maximum(trusted, block.count)))


@dataclass(frozen=True, kw_only=True)
class EntropyThreshold:
    """Reveal all whose distribution is narrow enough (d3LLM, arXiv 2601.07568), over all blocks at work."""

    tau: float = 0.4
    """Entropy, in nats."""

    def __post_init__(self) -> None:
        """Check the range."""
        if not self.tau >= 0:
            raise ValueError(f"tau of entropy_threshold must be 0 or more, got {self.tau}")

    def select(self, block: Block) -> Window:
        """Every entropy up to `tau`, and the lowest if there is none."""
        return block.reveal(block.first(-block.entropy) | (block.masked & (block.entropy <= self.tau)))


@dataclass(frozen=True, kw_only=True)
class RunningConfidence:
    """Running-confidence re-masking: text of low confidence is masked again (MDPO's RCR, arXiv 2508.13148).

    All masks of the block are filled; then the positions of lowest confidence are masked, as many as the plan leaves
    open, by the confidence that each token had when it was chosen. So what was revealed early may be revised.
    """

    def select(self, block: Block) -> Window:
        """`count` more than before, those of the highest confidence."""
        keep = block.settled.sum(1) + block.count
        chosen = highest(block.confidence, among=block.masked | block.settled, count=keep)
        # a row that waits keeps what it has
        return torch.where(block.count[:, None] > 0, chosen, block.settled)


UNMASKING: dict[str, type[Unmasking]] = {
    "low_confidence": LowConfidence,
    "random": Random,
    "entropy": Entropy,
    "margin": Margin,
    "threshold": Threshold,
    "factor": Factor,
    "entropy_threshold": EntropyThreshold,
    "running_confidence": RunningConfidence,
}
"""The policies by name."""


def entropy_of(logits: Float[Tensor, "... vocab"]) -> Float[Tensor, "..."]:
    """-Σ p log p of softmax(logits), in nats."""
    log_probability = logits.log_softmax(-1)
    return -(log_probability.exp() * log_probability.clamp(min=torch.finfo(logits.dtype).min)).sum(-1)


def highest(priority: Scores, *, among: Window, count: Int[Tensor, " rows"]) -> Window:
    """The `count` positions of highest priority among some in each row; among equals, the left one.

    A stable sort, because topk promises no order among equals, and because every row has a count of its own.
    """
    order = torch.where(among, priority, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(dim=1) < count[:, None]) & among
