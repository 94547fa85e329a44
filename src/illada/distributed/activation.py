"""Activation checkpointing: what the forward pass keeps for the backward pass, and what is computed twice instead.

none        everything is kept
selective   the results of matrix products and of attention are kept; norms, rotations and SwiGLU are computed
            again: little arithmetic for most of the memory (arXiv 2205.05198)
full        of every block only its input is kept; a third more arithmetic
"""

from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from illada.model.transformer import Transformer

ActivationCheckpointing = Literal["none", "selective", "full"]

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_fused_attention_overrideable.default,
}
"""Operations whose results are worth their memory. Varlen attention is none of torch's `aten`: see `_policy`."""


def checkpoint_activations(model: Transformer, how: ActivationCheckpointing) -> None:
    """Let every block of `model` keep as much as `how` says; its gradients stay what they are."""
    if how == "none":
        return
    context: dict[str, Any] = {}
    if how == "selective":
        context = {"context_fn": partial(create_selective_checkpoint_contexts, _policy)}
    for block in model.blocks:
        # nothing in a block is random: there is no generator whose state must be kept
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False, **context)


def _policy(context: object, operation: Any, *arguments: object, **options: object) -> CheckpointPolicy:
    del context, arguments, options
    kept = operation in _KEPT or "varlen_attn" in str(operation)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
