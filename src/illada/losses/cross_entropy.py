"""Cross-entropy of hidden states with a vocabulary, head and softmax in chunks: the kernel of every loss.

The usual way to save the logits' memory recomputes them in the backward pass, a fourth matrix product; here the
forward pass turns each chunk of logits into its gradient at once, so three products suffice and one chunk of logits
is all that ever exists.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = 1 << 24
"""Logits that exist at a time: 64 MiB in fp32."""


def weighted_cross_entropy(
    hidden: Float[Tensor, "predicted hidden"],
    head_weight: Float[Tensor, "vocab hidden"],
    targets: Int[Tensor, " predicted"],
    weights: Float[Tensor, " predicted"],
    *,
    chunk_logits: int = CHUNK_LOGITS,
    focus: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, " predicted"]]:
    """The weighted sum of the cross-entropies u, and each of them in nats (the latter without a gradient).

    The softmax runs over the whole vocabulary, [MASK] included, in fp32. With `focus` β the sum is of
    w (1 - e^-u)^β u: what the model knows already counts less (the token reweighting of "Beyond autoregression", arXiv
    2410.14157, but for its constant factor; the gradient passes through the factor, too).
    """
    if not torch.is_grad_enabled():  # a parameter asks for a gradient even then, and would get one computed
        hidden, head_weight = hidden.detach(), head_weight.detach()
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, head_weight = hidden.to(dtype), head_weight.to(dtype)
    rows = max(1, chunk_logits // head_weight.shape[0])
    total, terms = _ChunkedCrossEntropy.apply(hidden, head_weight, targets, weights, rows, focus)  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped
    return total, terms


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Σ wᵢ f(CEᵢ) whose forward pass also computes the gradients, while each chunk of logits is at hand."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, rows: int, focus: float
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_head = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_head = torch.zeros_like(head, dtype=torch.float32) if needs_head else None
        terms = torch.empty_like(targets, dtype=torch.float32)
        for start in range(0, targets.shape[0], rows):
            part = slice(start, start + rows)
            logits = (hidden[part] @ head.T).float()
            terms[part], gradient = _chunk(
                logits, targets[part], weights[part], focus=focus, gradient=needs_hidden or needs_head
            )
            gradient = gradient.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, head, out=grad_hidden[part])
            if grad_head is not None:
                _accumulate(grad_head, gradient, hidden[part])
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.head_dtype = head.dtype
        ctx.mark_non_differentiable(terms)
        return (_focused(terms, focus) * weights).sum(), terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad_total.to(grad_hidden.dtype),
            None if grad_head is None else grad_head.mul_(grad_total).to(ctx.head_dtype),
            None,
            None,
            None,
            None,
        )


def _focused(terms: Tensor, focus: float) -> Tensor:
    """(1 - e^-u)^β u."""
    return terms * (-torch.expm1(-terms)) ** focus if focus else terms


def _slope(terms: Tensor, focus: float) -> Tensor:
    """Its derivative by u: m^β + β m^(β-1) (1 - m) u with m = 1 - e^-u."""
    missing = (-torch.expm1(-terms)).clamp(min=torch.finfo(terms.dtype).tiny)
    return missing**focus * (1 + focus * (1 - missing) * terms / missing)


def _chunk(logits: Tensor, targets: Tensor, weights: Tensor, *, focus: float, gradient: bool) -> tuple[Tensor, Tensor]:
    """Cross-entropies of one chunk, and its logits overwritten by w f'(u) (softmax - onehot)."""
    target_logits = logits.gather(1, targets[:, None])
    peak = logits.amax(1, keepdim=True)
    target_logits = target_logits - peak
    sums = logits.sub_(peak).exp_().sum(1, keepdim=True)
    terms = (sums.log() - target_logits).squeeze(1)
    if gradient:
        scale = weights.float()[:, None]
        if focus:
            scale = scale * _slope(terms, focus)[:, None]
        logits.mul_(scale / sums)
        logits.scatter_add_(1, targets[:, None], -scale)
    return terms, logits


def _accumulate(total: Tensor, gradient: Tensor, hidden: Tensor) -> None:
    if gradient.dtype == total.dtype:
        total.addmm_(gradient.T, hidden)
    else:
        total.add_(gradient.T @ hidden)
