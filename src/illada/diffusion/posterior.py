"""The reverse process: from x_t to x_s at an earlier time s < t.

Given x_0, a visible token stays as it is, and a masked one becomes its clean token with probability
(alpha_s - alpha_t) / (1 - alpha_t), else stays masked (MDLM, arXiv 2406.07524). A sampler puts a model's
prediction in the place of x_0.
"""

from typing import TypeAlias

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from illada.diffusion.schedule import Schedule
from illada.shapes import Probabilities, Tokens

RowTime: TypeAlias = Float[Tensor, " batch"] | Float[Tensor, ""]
"""One time per row, or one for all."""

Distribution: TypeAlias = Float[Tensor, "batch length vocab"]
"""Probabilities of the tokens at each position; they sum to one over the vocabulary."""


def reveal_probability(
    schedule: Schedule, s: Float[Tensor, "*#shape"], t: Float[Tensor, "*#shape"]
) -> Float[Tensor, "..."]:
    """The chance that a token masked at time t is visible at s < t: (alpha_s - alpha_t) / (1 - alpha_t), 1 at s = 0."""
    alpha_s, alpha_t = schedule.alpha(s), schedule.alpha(t)
    return (alpha_s - alpha_t) / (1 - alpha_t)


def posterior(
    noisy: Tokens, predicted: Distribution, *, s: RowTime, t: RowTime, schedule: Schedule, mask_id: int
) -> Distribution:
    """The distribution of each token of x_s given x_t and a prediction of x_0.

    With `predicted` one-hot at x_0 this is q(x_s | x_t, x_0); with a model's probabilities it is p_θ(x_s | x_t).

    Args:
        noisy: x_t.
        predicted: Probabilities of the clean tokens, with none for [MASK]; only those at masked positions matter.
        s: The earlier time, 0 <= s < t.
        t: The time of x_t, in (0, 1].
        schedule: alpha(t).
        mask_id: The id of [MASK].
    """
    reveal = reveal_probability(schedule, s, t)[..., None] * (noisy == mask_id)
    unchanged = F.one_hot(noisy, predicted.shape[-1])
    return (1 - reveal[..., None]) * unchanged + reveal[..., None] * predicted


def reverse_step(
    noisy: Tokens,
    predicted: Tokens,
    *,
    s: RowTime,
    t: RowTime,
    schedule: Schedule,
    uniform: Probabilities,
    mask_id: int,
) -> Tokens:
    """Draw x_s from x_t and predicted clean tokens; visible tokens never change.

    Args:
        noisy: x_t.
        predicted: A clean token for each position; only those at masked positions matter.
        s: The earlier time, 0 <= s < t; at 0 no [MASK] remains.
        t: The time of x_t, in (0, 1].
        schedule: alpha(t).
        uniform: Noise in [0, 1).
        mask_id: The id of [MASK].
    """
    reveal = (uniform < reveal_probability(schedule, s, t)[..., None]) & (noisy == mask_id)
    return predicted.where(reveal, noisy)
