"""The next-token loss of an autoregressive model: cross-entropy of token i + 1 from the hidden state at i.

L = -Σ_i log p(x^{i+1} | x^1 .. x^i): exact where the attention is causal, with nothing masked and no noise.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from illada.losses.cross_entropy import CHUNK_LOGITS, weighted_cross_entropy
from illada.shapes import Hidden, Mask, Segments, Tokens


def predicting(segments: Segments, learnt: Mask | None = None) -> Mask:
    """True at the positions that predict the token behind them.

    That token is no padding, belongs to the same segment, and is one of the `learnt` ones (None: all are). So the
    first token of a segment is never predicted, and the last position of one predicts nothing.
    """
    behind = segments[:, 1:]
    where = (behind >= 0) & (behind == segments[:, :-1])
    if learnt is not None:
        where &= learnt[:, 1:]
    return F.pad(where, (0, 1))


def next_token_loss(
    hidden: Hidden,
    head_weight: Float[Tensor, "vocab hidden"],
    *,
    tokens: Tokens,
    where: Mask,
    normaliser: int,
    chunk_logits: int = CHUNK_LOGITS,
) -> Float[Tensor, ""]:
    """Σ of the cross-entropies of the tokens behind the positions `where`, divided by `normaliser`; in nats.

    `normaliser` belongs to the whole optimisation step, as that of `illada.losses.diffusion.diffusion_loss` does.
    """
    total, _ = _cross_entropy(hidden, head_weight, tokens, where, chunk_logits)
    return total / normaliser


def next_token_nats(
    hidden: Hidden, head_weight: Float[Tensor, "vocab hidden"], *, tokens: Tokens, where: Mask
) -> Float[Tensor, " predicted"]:
    """The same terms one by one, row by row, without a gradient."""
    _, nats = _cross_entropy(hidden, head_weight, tokens, where, CHUNK_LOGITS)
    return nats


def _cross_entropy(
    hidden: Tensor, head_weight: Tensor, tokens: Tensor, where: Tensor, chunk_logits: int
) -> tuple[Tensor, Tensor]:
    # flattened, the token behind a position is the next one also at the end of a row, where `where` is False
    places = where.flatten().nonzero().flatten()
    return weighted_cross_entropy(
        hidden.flatten(0, 1).index_select(0, places),
        head_weight,
        tokens.flatten().index_select(0, places + 1),
        torch.ones(len(places), device=hidden.device),
        chunk_logits=chunk_logits,
    )
