"""The masked diffusion loss: cross-entropy at the masked positions only.

Eq. 1 of iLLaDA (arXiv 2606.25331):  L = -E[ 1/t Σ_i 1[x_t^i = M] log p(x_0^i | x_t) ].

Visible positions add nothing, so their hidden states never meet the vocabulary.
"""

from jaxtyping import Float
from torch import Tensor

from illada.losses.cross_entropy import CHUNK_LOGITS, weighted_cross_entropy
from illada.shapes import Hidden, Mask, Tokens


def diffusion_loss(
    hidden: Hidden,
    head_weight: Float[Tensor, "vocab hidden"],
    *,
    clean: Tokens,
    masked: Mask,
    weight: Float[Tensor, "batch length"],
    normaliser: int,
    chunk_logits: int = CHUNK_LOGITS,
    focus: float = 0.0,
) -> Float[Tensor, ""]:
    """Eq. 1 per token: Σ over masked positions of weight * cross-entropy, divided by `normaliser`.

    `weight` is the schedule's loss weight at each position's t (1/t for the linear schedule). `normaliser` belongs to
    the whole optimisation step, over all micro-batches and processes, so that the losses of its parts add up to its
    own: in pre-training it counts every position that is not padding, masked or not (B·L in the papers). `focus` is
    that of `illada.losses.cross_entropy.weighted_cross_entropy`: 0 for the bound.
    """
    where = masked.flatten().nonzero().flatten()
    total, _ = weighted_cross_entropy(
        hidden.flatten(0, 1).index_select(0, where),
        head_weight,
        clean.flatten().index_select(0, where),
        weight.flatten().index_select(0, where),
        chunk_logits=chunk_logits,
        focus=focus,
    )
    return total / normaliser
