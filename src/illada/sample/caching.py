"""Which positions a step computes anew; the others are seen with the keys and values they had.

With full attention every token changes what all others should see, so a cache is an approximation, and the policies
differ in where they trust it. Every policy is a frozen dataclass with one method. What it leaves out is taken from
`illada.model.cache`; the engine adds what it cannot leave out: positions that were never computed, and the masks that
the step is to fill. Each policy can be told to compute whole rows every `refresh` forwards; with 1 it is `none`.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Places = Bool[Tensor, "rows places"]
"""True at some positions of each row."""
PerRow = Int[Tensor, " rows"]


@dataclass(frozen=True, kw_only=True)
class RowView:
    """What a policy sees of the rows before a forward. Positions are counted from the beginning of the prompt."""

    inside: Places
    """Positions that there are: prompt, text, and the masks in sight."""
    masked: Places
    """Open holes among them."""
    start: PerRow
    """The first position of the block that is being filled."""
    stop: PerRow
    """The position behind it; of several blocks at work, behind the last."""
    previous: PerRow
    """The first position of the block before it; `start` where there is none."""
    forward: PerRow
    """The number of the forward to come, from 1."""
    block_forward: PerRow
    """The same within the block, from 1."""
    revealed_at: Int[Tensor, "rows places"]
    """The forward that made each position text; 0 where it was given or is masked."""
    surprise: Float[Tensor, " rows"]
    """The largest entropy, in nats, among the distributions of the tokens that the last forward revealed; infinite
    before the first."""

    def whole(self, when: Bool[Tensor, " rows"]) -> Places:
        """All of the rows for which `when` holds."""
        return self.inside & when[:, None]

    def every(self, forwards: int) -> Places:
        """All of a row with the first forward and every so many after it; nothing with 0."""
        if forwards == 0:
            return torch.zeros_like(self.inside)
        return self.whole((self.forward - 1) % forwards == 0)

    def between(self, start: PerRow, stop: PerRow) -> Places:
        """Positions from `start` up to `stop`."""
        place = torch.arange(self.inside.shape[1], device=start.device)
        return self.inside & (place >= start[:, None]) & (place < stop[:, None])

    @property
    def block(self) -> Places:
        """The block that is being filled."""
        return self.between(self.start, self.stop)

    @property
    def switched(self) -> Bool[Tensor, " rows"]:
        """The block is new."""
        return self.block_forward == 1


@runtime_checkable
class Caching(Protocol):
    """Chooses the positions to compute."""

    def recompute(self, rows: RowView) -> Places:
        """The positions whose keys and values the next forward computes."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Refreshed:
    """Whole rows now and then."""

    refresh: int = 0
    """Compute everything every so many forwards; 0: when the policy says so alone."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.refresh < 0:
            raise ValueError(f"refresh must be 0 or more forwards, got {self.refresh}")


@dataclass(frozen=True, kw_only=True)
class NoCache:
    """Everything, always: exact."""

    def recompute(self, rows: RowView) -> Places:
        """All there is."""
        return rows.inside


@dataclass(frozen=True, kw_only=True)
class Prefix(_Refreshed):
    """Keep what stands before the block while it is filled (Fast-dLLM, arXiv 2505.22618, PrefixCache)."""

    def recompute(self, rows: RowView) -> Places:
        """Everything when a block begins, then the block and all behind it."""
        behind = rows.between(rows.start, torch.full_like(rows.start, rows.inside.shape[1]))
        return rows.every(self.refresh) | rows.whole(rows.switched) | behind


@dataclass(frozen=True, kw_only=True)
class Dual(_Refreshed):
    """Keep also the masks behind the block (Fast-dLLM, DualCache). On a canvas that grows there are none."""

    def recompute(self, rows: RowView) -> Places:
        """Everything when a block begins, then the block."""
        return rows.every(self.refresh) | rows.whole(rows.switched) | rows.block


@dataclass(frozen=True, kw_only=True)
class Delayed(_Refreshed):
    """Keep a token from the second forward after it was revealed (dKV-Cache, arXiv 2505.15781, "decode").

    Its key and value change most in the step in which it becomes text, so they are computed once more after that.
    """

    refresh: int = 8

    def recompute(self, rows: RowView) -> Places:
        """Masks, what the last forward revealed, and everything every `refresh` forwards."""
        fresh = (rows.revealed_at > 0) & (rows.revealed_at == rows.forward[:, None] - 1)
        return rows.every(self.refresh) | rows.masked | (rows.inside & fresh)


@dataclass(frozen=True, kw_only=True)
class EntropyTriggered(_Refreshed):
    """Compute everything after a surprise, else masks and recent text (EntropyCache, arXiv 2603.18489).

    The paper's threshold is not public: the one here is ours.
    """

    threshold: float = 1.0
    """Entropy of a revealed token's distribution, in nats."""
    recent: int = 64
    """How many tokens of the latest text are computed with the masks."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name in ("threshold", "recent"):
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name} of entropy must be 0 or more, got {value}")

    def recompute(self, rows: RowView) -> Places:
        """Everything if the last forward revealed a token it was unsure of."""
        # the latest first; of those that one forward revealed, the right ones
        order = torch.where(rows.inside, rows.revealed_at, 0).flip(1).argsort(dim=1, descending=True, stable=True)
        latest = (order.argsort(dim=1).flip(1) < self.recent) & (rows.revealed_at > 0)
        surprised = rows.whole(rows.surprise > self.threshold)
        return rows.every(self.refresh) | surprised | rows.masked | (rows.inside & latest)


@dataclass(frozen=True, kw_only=True)
class BlockReuse(_Refreshed):
    """Finished blocks are kept for good, but for the last one, once (dLLM-Var, arXiv 2510.24605)."""

    def recompute(self, rows: RowView) -> Places:
        """The block; when it is new, the one before it as well."""
        begin = torch.where(rows.switched, rows.previous, rows.start)
        return rows.every(self.refresh) | rows.between(begin, rows.stop)


@dataclass(frozen=True, kw_only=True)
class Elastic(_Refreshed):
    """Compute deeper layers anew where attention drifts: see `illada.sample.elastic` (arXiv 2510.14973)."""

    gamma: float = 0.9
    """The least cosine similarity of a watched token's attention, averaged over the heads, to what it was in the
    forward before."""

    def __post_init__(self) -> None:
        """Check the range."""
        super().__post_init__()
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma of elastic must be between 0 and 1, got {self.gamma}")

    def recompute(self, rows: RowView) -> Places:
        """The block's masks, and what the last forward revealed; the engine adds the tokens that are watched."""
        fresh = (rows.revealed_at > 0) & (rows.revealed_at == rows.forward[:, None] - 1)
        return rows.every(self.refresh) | (rows.masked & rows.block) | (rows.inside & fresh)


CACHING: dict[str, type[Caching]] = {
    "none": NoCache,
    "prefix": Prefix,
    "dual": Dual,
    "delayed": Delayed,
    "elastic": Elastic,
    "entropy": EntropyTriggered,
    "block_reuse": BlockReuse,
}
"""The policies by name."""
