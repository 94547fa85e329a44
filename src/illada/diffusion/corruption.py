"""The forward process q(x_t | x_0): which times, and which positions become [MASK].

Nothing here draws: the noise arrives as numbers in [0, 1), looked up in an `illada.seeding.Stream` by example.
A position is masked exactly if its number is below its masking probability.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from illada.seeding import Stream
from illada.shapes import Mask, Probabilities, Segments, Tokens

_DISCRIMINANTS = (5, 8, 12, 13, 17, 21, 24, 28)
"""Of the first real quadratic number fields; see `_step`."""


def sample_times(
    example: Int[Tensor, " batch"],
    *,
    stream: Stream,
    epoch: Tensor | int = 0,
    segments: int = 1,
    low_discrepancy: bool = True,
    floor: float = 1e-3,
    ceiling: float = 1.0,
) -> Float[Tensor, "batch segments"]:
    """One time in [floor, ceiling] for each segment of each example, t = (ceiling - floor) u + floor, u ~ U[0, 1).

    Plain times are independent. Low-discrepancy times are uniform too, but those of any run of consecutive examples
    cover the interval evenly, which takes most of the spread of t out of a batch's loss (the purpose of MDLM's
    sampler, arXiv 2406.07524). Here the time is a function of the example's number alone, so a global batch is
    covered evenly however it is cut into micro-batches and processes.

    Args:
        example: The examples' numbers in the order of training: evenness holds for neighbours in this count.
        stream: Noise for the times.
        epoch: The pass over the data, one for all or one per example; another pass has other times.
        segments: Times per example, one for each part that a row may be split into.
        low_discrepancy: Even (the default) or independent.
        floor: The smallest time, which bounds the weight 1/t (LLaDA's code: 1e-3).
        ceiling: The largest time (dLLM-Var, arXiv 2510.24605: 0.9).

    Returns:
        float32 times. All segments are uniform; different segments of a row do not move together.

    Raises:
        ValueError: not 0 < floor < ceiling <= 1.
    """
    if not 0 < floor < ceiling <= 1:
        raise ValueError(
            f"the times need 0 < floor < ceiling <= 1 (LLaDA: 1e-3 and 1), not a floor of {floor} and a ceiling of "
            f"{ceiling}"
        )
    if low_discrepancy:
        u = _additive_sequence(example, stream=stream, epoch=epoch, segments=segments)
    else:
        u = stream.uniform(example, segments, epoch=epoch)
    return (ceiling - floor) * u + floor


def _additive_sequence(
    example: Int[Tensor, " batch"], *, stream: Stream, epoch: Tensor | int, segments: int
) -> Float[Tensor, "batch segments"]:
    """u_j = frac(offset_j + example * step_j), a Kronecker sequence for each segment number j.

    The integers stand for fractions of 2⁶⁴ and wrap as fractions do, so u is exact however large the example's number.
    """
    number = torch.arange(segments, device=example.device)
    epochs = torch.as_tensor(epoch, device=example.device).reshape(-1, 1)
    words = stream.words(number, 2, epoch=epochs)
    offset = (words[..., 0] << 32) | words[..., 1]
    steps = [_step(_DISCRIMINANTS[j % len(_DISCRIMINANTS)]) for j in range(segments)]
    fraction = offset + example.to(torch.int64)[:, None] * torch.tensor(steps, device=example.device)
    return ((fraction >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def _step(discriminant: int) -> int:
    """The fractional part of (D mod 2 + √D) / 2, times 2⁶⁴, as a signed 64-bit integer.

    D = 5 is the golden ratio, the most even step there is. One step for all segments would make the second time of
    a row a fixed shift of the first, in every row. Steps from different quadratic fields are independent over the
    rationals, so by Weyl's theorem the times of a row together fill the cube; and these first fields have continued
    fractions with no term above 4, so each segment by itself stays nearly as even as the first. Segments beyond the
    eighth use the steps again, with offsets of their own.
    """
    root = math.isqrt(discriminant << 128)
    step = ((((discriminant & 1) << 64) + root) >> 1) % 2**64
    return step - 2**64 if step >= 2**63 else step


def spread_times(times: Float[Tensor, "batch segments"], segments: Segments) -> Probabilities:
    """The time of each position, from the number of its segment; padding (-1) gets 0 and is never masked."""
    return torch.where(segments >= 0, times.gather(1, segments.clamp(min=0)), 0)


def absorb(clean: Tokens, masking: Probabilities, *, uniform: Probabilities, mask_id: int) -> tuple[Tokens, Mask]:
    """Mask each position by itself: x_t^i = [MASK] with probability `masking`, else x_0^i.

    Args:
        clean: x_0.
        masking: 1 - alpha(t) at each position; 0 keeps a position for certain, 1 masks it for certain.
        uniform: Noise in [0, 1).
        mask_id: The id of [MASK].

    Returns:
        x_t, and where it was masked.
    """
    masked = uniform < masking
    return clean.masked_fill(masked, mask_id), masked


def mask_exactly(eligible: Mask, count: Int[Tensor, " batch"], *, uniform: Probabilities) -> Mask:
    """Mark exactly `count[b]` of the eligible positions of row b, every such choice equally likely.

    The positions with the smallest noise are taken; equal noise goes to the left one.

    Raises:
        ValueError: a count is negative or above the number of eligible positions.
    """
    available = eligible.sum(dim=1)
    if bool((wrong := (count < 0) | (count > available)).any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"cannot mask {int(count[row])} positions of row {row}, which has {int(available[row])} to choose from"
        )
    order = torch.where(eligible, uniform, math.inf).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    return rank < count[:, None]


def stratified_counts(
    length: int, samples: int, *, uniform: Float[Tensor, "*offset"]
) -> Int[Tensor, "*offset {samples}"]:
    """How many of `length` positions each of `samples` draws masks: l_k = 1 + floor(length * frac(u + k/samples)).

    Systematic sampling: every l_k is exactly uniform on 1 .. length because u is uniform, and any l occurs
    samples/length times up to the rounding, whatever u is. (To round points of an even grid to integers would also
    look stratified, yet favour some l.)

    Args:
        length: Positions that can be masked.
        samples: Draws.
        uniform: The offset u in [0, 1); several give several independent sets of draws.
    """
    return 1 + (length * stratified(samples, uniform=uniform)).to(torch.int64).clamp(max=length - 1)


def stratified(samples: int, *, uniform: Float[Tensor, "*offset"]) -> Float[Tensor, "*offset {samples}"]:
    """`samples` evenly spaced points of [0, 1) behind one random offset, frac(u + k/samples), in float64."""
    grid = torch.arange(samples, dtype=torch.float64, device=uniform.device) / samples
    return (uniform.to(torch.float64)[..., None] + grid) % 1
