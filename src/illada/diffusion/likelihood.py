"""How probable is a text? The bound on log p(x) of a masked diffusion model, estimated or enumerated.

All forms have one expectation, with L positions to score (the target; the rest, such as a prompt, stays visible):

    bound = E_l E_{masks of l positions} [ (L / l) sum over masked i of log p_θ(x^i | x_t) ],    l uniform on 1 .. L

It is never above the log-probability that the model gives the target when it fills it in a random order, and equals
that if the order makes no difference. Values are in nats per sequence (the whole target), not per token. Logits are
taken as they are: the softmax runs over the whole vocabulary, [MASK] included, in float32 or better.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from illada.diffusion.corruption import mask_exactly, stratified, stratified_counts
from illada.diffusion.schedule import Schedule, loss_weight
from illada.seeding import Stream
from illada.shapes import Denoise

ENUMERATION_LIMIT = 16
"""The longest target that `exact_bound` takes: 2¹⁶ - 1 forwards."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A Monte-Carlo estimate, in nats per sequence.

    `standard_error` compares neighbours in the order of their l or t: its square is the mean of (v_k - v_{k+1})² / 2
    over the neighbours, divided by the number of samples (Wolter, "Introduction to Variance Estimation", chapter 8).
    For independent samples that is unbiased, as the usual formula is. The samples are stratified, neighbours have
    nearly the same l or t, and so most of the spread that the strata remove is left out; what remains of it makes the
    error too large rather than too small. From a single sample it is infinite, unless the target has one position:
    then there is only one mask, and counting gives the exact value.
    """

    value: float
    standard_error: float
    samples: int

    @classmethod
    def of(
        cls, values: Float[Tensor, " samples"], *, strata: Shaped[Tensor, " samples"], exact: bool = False
    ) -> "Estimate":
        """The mean of the samples, with the error of successive differences in the order of their strata (l or t)."""
        samples = len(values)
        if exact:
            error = 0.0
        elif samples == 1:
            error = math.inf
        else:
            steps = values[strata.argsort(stable=True)].diff()
            error = math.sqrt(float(steps.square().mean()) / 2 / samples)
        return cls(value=float(values.mean()), standard_error=error, samples=samples)


def masks_by_count(
    size: int, *, samples: int, stream: Stream, index: int
) -> tuple[Bool[Tensor, "{samples} {size}"], Int[Tensor, " {samples}"]]:
    """Masks of a target of `size` positions for the form by count, and l, how many positions each hides.

    A sample's value is (size / l) times the summed log-probability of its masked positions. The noise is a function of
    the address (stream, index).

    Raises:
        ValueError: there are 0 samples.
    """
    offset, uniform = _noise(size, stream=stream, index=index, samples=samples, device=None)
    count = stratified_counts(size, samples, uniform=offset)
    return mask_exactly(torch.ones_like(uniform, dtype=torch.bool), count, uniform=uniform), count


def all_masks(size: int) -> tuple[Bool[Tensor, "subsets {size}"], Float[Tensor, " subsets"]]:
    """Every way to mask a target of `size` positions, and what its summed log-probability weighs in the exact bound.

    Raises:
        ValueError: the target has more than 16 positions.
    """
    if size > ENUMERATION_LIMIT:
        raise ValueError(
            f"the exact bound takes at most {ENUMERATION_LIMIT} target positions, not {size}: "
            "estimate the bound of longer texts from samples"
        )
    subset = torch.arange(1, 2**size)
    masked = (subset[:, None] >> torch.arange(size)) % 2 == 1
    # (1/L) (L/l) / binomial(L, l): the mean over l of L/l times the mean over the subsets of size l
    weight = [0.0] + [1 / (count * math.comb(size, count)) for count in range(1, size + 1)]
    return masked, torch.tensor(weight, dtype=torch.float64)[masked.sum(dim=1)]


def bound_by_count(
    denoise: Denoise,
    tokens: Int[Tensor, " length"],
    *,
    target: Bool[Tensor, " length"],
    mask_id: int,
    samples: int,
    stream: Stream,
    index: int,
    batch_size: int,
) -> Estimate:
    """Estimate the bound with exactly l masks per sample, weighted L/l, l stratified over 1 .. L.

    LLaDA, arXiv 2502.09992, Eq. 14, without the rounding of l that makes the authors' code slightly biased. They find
    128 samples enough where the form by time takes over 1000; a target of one position needs a single one.

    Args:
        denoise: Tokens -> logits.
        tokens: The whole text, x_0.
        target: The positions to score.
        mask_id: The id of [MASK].
        samples: Noisy versions to average over.
        stream: Noise; the estimate is a function of the address (stream, index) whatever the batch size.
        index: The number of this text.
        batch_size: Rows per forward.

    Raises:
        ValueError: nothing to score, a [MASK] among what is to be scored, or samples or batch size below 1.
    """
    text = _Text(tokens=tokens, target=target, mask_id=mask_id)
    masked, count = masks_by_count(text.size, samples=samples, stream=stream, index=index)
    sums = _masked_log_probability(denoise, text, masked=masked.to(tokens.device), batch_size=batch_size)
    return Estimate.of(text.size * sums.cpu() / count, strata=count, exact=text.size == 1)


def bound_by_time(
    denoise: Denoise,
    tokens: Int[Tensor, " length"],
    *,
    target: Bool[Tensor, " length"],
    mask_id: int,
    schedule: Schedule,
    samples: int,
    stream: Stream,
    index: int,
    batch_size: int,
) -> Estimate:
    """Estimate the bound in continuous time: t stratified over (0, 1], Bernoulli masks, weight -alpha'/(1 - alpha).

    This is the training loss of a single text (iLLaDA, arXiv 2606.25331, Eq. 1) without a floor on t, so without
    bias. It is noisier than `bound_by_count`, and with the linear or cosine schedule its variance is not even finite:
    small times are rare and weigh much. `PolynomialSchedule` has the same mean with a finite variance.

    Args:
        denoise: Tokens -> logits.
        tokens: The whole text, x_0.
        target: The positions to score.
        mask_id: The id of [MASK].
        schedule: alpha(t).
        samples: Noisy versions to average over.
        stream: Noise; the estimate is a function of the address (stream, index) whatever the batch size.
        index: The number of this text.
        batch_size: Rows per forward.

    Raises:
        ValueError: nothing to score, a [MASK] among what is to be scored, or samples or batch size below 1.
    """
    text = _Text(tokens=tokens, target=target, mask_id=mask_id)
    offset, uniform = _noise(text.size, stream=stream, index=index, samples=samples, device=tokens.device)
    t = 1 - stratified(samples, uniform=offset)  # in (0, 1]: never 0
    masked = uniform < (1 - schedule.alpha(t))[:, None]
    sums = _masked_log_probability(denoise, text, masked=masked, batch_size=batch_size)
    # without a mask the value is 0, also where t is so small that its weight is infinite
    values = torch.where(masked.any(dim=1), loss_weight(schedule, t) * sums, 0)
    return Estimate.of(values, strata=t)


def exact_bound(
    denoise: Denoise,
    tokens: Int[Tensor, " length"],
    *,
    target: Bool[Tensor, " length"],
    mask_id: int,
    batch_size: int,
) -> float:
    """The bound itself, in nats per sequence, from every mask of the target: 2^L - 1 rows through `denoise`.

    Raises:
        ValueError: more than 16 positions to score, nothing to score, a [MASK] among what is to be scored, or a batch
            size below 1.
    """
    text = _Text(tokens=tokens, target=target, mask_id=mask_id)
    masked, weight = all_masks(text.size)
    sums = _masked_log_probability(denoise, text, masked=masked.to(tokens.device), batch_size=batch_size)
    return float((weight * sums.cpu()).sum())


@dataclass(frozen=True, kw_only=True)
class _Text:
    """A text of which the target is to be scored."""

    tokens: Int[Tensor, " length"]
    target: Bool[Tensor, " length"]
    mask_id: int

    def __post_init__(self) -> None:
        if self.size == 0:
            raise ValueError(f"no position of the {len(self.tokens)} tokens is marked as target: nothing to score")
        if hidden := int((self.tokens[self.target] == self.mask_id).sum()):
            raise ValueError(f"{hidden} of the {self.size} target tokens are [MASK] ({self.mask_id}): give clean text")

    @property
    def size(self) -> int:
        """L, the number of positions to score."""
        return int(self.target.sum())


def _noise(
    size: int, *, stream: Stream, index: int, samples: int, device: torch.device | None
) -> tuple[Float[Tensor, ""], Float[Tensor, "{samples} target"]]:
    """The offset of the strata (draw 0 of the text's address) and the noise of the masks (draw k + 1 for sample k)."""
    if samples < 1:
        raise ValueError(f"an estimate takes at least 1 sample, not {samples}")
    draw = torch.arange(1 + samples, device=device)
    address = torch.full_like(draw, index)
    offset = stream.uniform64(address[0], 1)[0]
    return offset, stream.uniform64(address[1:], size, epoch=draw[1:])


def _masked_log_probability(
    denoise: Denoise, text: _Text, *, masked: Bool[Tensor, "samples target"], batch_size: int
) -> Float[Tensor, " samples"]:
    """For each choice of masked target positions, the summed log-probability of their clean tokens, in float64."""
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, not {batch_size}")
    sums = []
    for start in range(0, len(masked), batch_size):
        rows = masked[start : start + batch_size]
        where = torch.zeros(len(rows), len(text.tokens), dtype=torch.bool, device=rows.device)
        where[:, text.target] = rows
        with torch.no_grad():
            logits = denoise(text.tokens.masked_fill(where, text.mask_id))[where]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = F.cross_entropy(logits, text.tokens.expand_as(where)[where], reduction="none")
        per_token = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
        sums.append(per_token.masked_scatter(rows, -losses.to(torch.float64)).sum(dim=1))
    return torch.cat(sums)
