"""What the backward pass waits for: bytes per token that a block keeps of its forward pass.

It is what eager execution keeps; a compiled block keeps somewhat less.
"""

from dataclasses import dataclass

from illada.distributed.activation import ActivationCheckpointing
from illada.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Bytes per number where it matters."""

    weight: int
    """Of a weight as a matrix product is given it."""
    compute: int
    """Of what matrix products compute with."""
    residual: int
    """Of the residual stream."""


PLAIN = Numbers(weight=4, compute=4, residual=4)
"""fp32."""
AUTOCAST = Numbers(weight=4, compute=2, residual=4)
"""bf16 autocast over weights in fp32: a process that has the whole model."""
GATHERED = Numbers(weight=2, compute=2, residual=2)
"""Weights gathered in bf16 (FSDP): the embedding, and with it the residual stream, is in bf16 too."""


@dataclass(frozen=True, kw_only=True)
class BlockActivations:
    """Bytes per token of one block."""

    kept: int
    """From its forward to its backward pass."""
    recomputed: int
    """More while its backward pass runs: what checkpointing left out and computes again."""
    workspace: int
    """More while its backward pass runs: gradients of what is inside it."""


def block_activations(
    config: ModelConfig, numbers: Numbers, *, checkpointing: ActivationCheckpointing = "none", tensor: int = 1
) -> BlockActivations:
    """Per token and block; of `tensor` processes that divide its matrices each has a part of the heads and the MLP."""
    hidden = config.hidden_size
    queries, keys = config.heads * config.head_size // tensor, config.kv_heads * config.head_size // tensor
    wide, heads = config.ffn_size // tensor, config.heads // tensor
    compute, residual = numbers.compute, numbers.residual
    # a norm reads fp32 and keeps what it gives before its weight, and a scale
    norms = 2 * (4 * hidden + residual * hidden + 4)
    # autocast gives each of the five matrices behind a norm a copy of its input
    inputs = (5 if numbers.weight > compute else 2) * compute * hidden
    # queries and keys after their rotation, values; the mixed heads, before and after they are put side by side
    attention = compute * (3 * queries + 2 * keys) + 4 * heads
    swiglu = 4 * compute * wide
    everything = norms + inputs + attention + swiglu
    products = compute * (queries + 2 * keys + 2 * wide + 2 * hidden) + compute * queries + 4 * heads
    kept = {"none": everything, "selective": residual * hidden + products, "full": residual * hidden}
    found = {"none": everything, "selective": products, "full": 0}
    return BlockActivations(
        kept=kept[checkpointing],
        recomputed=everything - found[checkpointing],
        workspace=3 * compute * wide + 2 * (compute + residual) * hidden,
    )


def outer_activations(config: ModelConfig, numbers: Numbers) -> int:
    """Bytes per token outside the blocks: the last norm, the states it gives, the angles of the rotation."""
    hidden = config.hidden_size
    return (4 + 2 * numbers.residual) * hidden + 4 + 4 * config.head_size
