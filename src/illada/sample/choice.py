"""Which token a masked position would get, and how sure the model is of it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from illada.seeding import Stream

_GUMBEL = Stream(0, "gumbel")
_MAX_LENGTH = 1 << 16

PerHole = Int[Tensor, " masked"]


def choose_tokens(
    logits: Float[Tensor, "masked vocab"],
    *,
    reveal_last: Int[Tensor, " last"],
    temperature: float,
    top_p: float,
    seed: PerHole,
    step: PerHole,
    hole: PerHole,
) -> tuple[PerHole, Float[Tensor, " masked"]]:
    """The chosen token of every masked position and the model's probability of it.

    The probability is that of softmax(logits) without the tokens to be revealed last (which have none), whatever
    temperature and top_p: how sure the model is does not depend on how daring the choice was.

    Args:
        logits: about the tokens at the masked positions; -inf for those that cannot be chosen, which have no share in
            the softmax.
        reveal_last: ids that can be chosen, with probability 0.
        temperature: 0 takes the likeliest token, of equals the lowest id; above, argmax(logits / T + Gumbel noise).
        top_p: at temperature > 0, the nucleus to choose from.
        seed: of each position's request: with step and hole the address of its noise at temperature > 0.
        step: the forwards that the request has behind it.
        hole: the number of the position among the holes of its request.
    """
    logits = logits.float()
    seen = logits.index_fill(-1, reveal_last, -torch.inf) if len(reveal_last) else logits
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        tokens = _sample(logits, temperature=temperature, top_p=top_p, seed=seed, step=step, hole=hole)
    return tokens, seen.softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)


def nucleus(logits: Float[Tensor, "... vocab"], top_p: float) -> Float[Tensor, "... vocab"]:
    """The logits of the smallest set of likeliest tokens with at least `top_p` of the probability; -inf elsewhere."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    # a token is in while those before it fall short: the likeliest is always in
    outside = probability.cumsum(-1) - probability >= top_p
    return torch.empty_like(logits).scatter_(-1, order, ordered.masked_fill(outside, -torch.inf))


def _sample(logits: Tensor, *, temperature: float, top_p: float, seed: Tensor, step: Tensor, hole: Tensor) -> Tensor:
    # fp32 rounds the Gumbel noise of likely tokens together, which sharpens the distribution without being asked
    # (arXiv 2409.02908): float64 throughout
    scaled = logits.double() / temperature
    if top_p < 1:
        scaled = nucleus(scaled, top_p)
    uniform = _GUMBEL.uniform64(seed, logits.shape[-1], epoch=step * _MAX_LENGTH + hole)
    return (scaled - (-uniform.log()).log()).argmax(-1)
