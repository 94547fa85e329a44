"""Which token a masked position would get, and how sure the model is of it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from illada.seeding import Stream

WindowLogits = Float[Tensor, "rows window vocab"]

_GUMBEL = Stream(0, "gumbel")
_MAX_LENGTH = 1 << 16


def choose_tokens(
    logits: WindowLogits,
    *,
    suppress: Int[Tensor, " suppressed"],
    reveal_last: Int[Tensor, " last"],
    temperature: float,
    top_p: float,
    noise_at: Int[Tensor, "rows 2"],
    hole: Int[Tensor, "rows window"],
) -> tuple[Int[Tensor, "rows window"], Float[Tensor, "rows window"]]:
    """The chosen token of every position and the model's probability of it.

    The probability is that of softmax(logits) without the suppressed tokens and those to be revealed last (which have
    none), whatever temperature and top_p: how sure the model is does not depend on how daring the choice was.

    Args:
        logits: about the tokens at the window's positions.
        suppress: ids that cannot be chosen.
        reveal_last: ids that can be, with probability 0.
        temperature: 0 takes the likeliest token, of equals the lowest id; above, argmax(logits / T + Gumbel noise).
        top_p: at temperature > 0, the nucleus to choose from.
        noise_at: the (seed of the request, number of its step) that address the noise of temperature > 0.
        hole: the number of each position among the holes of its request, part of the same address.
    """
    logits = logits.float().index_fill(-1, suppress, -torch.inf)
    probability = logits.index_fill(-1, reveal_last, -torch.inf).softmax(-1)
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        tokens = _sample(logits, temperature=temperature, top_p=top_p, noise_at=noise_at, hole=hole)
    return tokens, probability.gather(-1, tokens[..., None]).squeeze(-1)


def nucleus(logits: Float[Tensor, "... vocab"], top_p: float) -> Float[Tensor, "... vocab"]:
    """The logits of the smallest set of likeliest tokens with at least `top_p` of the probability; -inf elsewhere."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    # a token is in while those before it fall short: the likeliest is always in
    outside = probability.cumsum(-1) - probability >= top_p
    return torch.empty_like(logits).scatter_(-1, order, ordered.masked_fill(outside, -torch.inf))


def _sample(
    logits: Tensor, *, temperature: float, top_p: float, noise_at: Tensor, hole: Tensor
) -> Int[Tensor, "rows window"]:
    # fp32 rounds the Gumbel noise of likely tokens together, which sharpens the distribution without being asked
    # (arXiv 2409.02908): float64 throughout
    scaled = logits.double() / temperature
    if top_p < 1:
        scaled = nucleus(scaled, top_p)
    seed, step = noise_at[:, :1].expand_as(hole), noise_at[:, 1:]
    uniform = _GUMBEL.uniform64(seed, logits.shape[-1], epoch=step * _MAX_LENGTH + hole)
    return (scaled - (-uniform.log()).log()).argmax(-1)
