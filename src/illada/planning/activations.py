"""What the backward pass waits for: bytes per token that a block keeps of its forward pass.

The residual stream is in fp32, matrix products compute in `compute` bytes per number: 2 under bf16 autocast, 4 in fp32.
It is what eager execution keeps; a compiled block keeps somewhat less.
"""

from dataclasses import dataclass

from illada.distributed.activation import ActivationCheckpointing
from illada.model.config import ModelConfig


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
    config: ModelConfig, *, compute: int, checkpointing: ActivationCheckpointing = "none", tensor: int = 1
) -> BlockActivations:
    """Per token and block; of `tensor` processes that divide its matrices each has a part of the heads and the MLP."""
    hidden = config.hidden_size
    queries, keys = config.heads * config.head_size // tensor, config.kv_heads * config.head_size // tensor
    wide, heads = config.ffn_size // tensor, config.heads // tensor
    # what a norm reads, what it gives before its weight, its scale
    norms = 2 * 4 * (2 * hidden + 1)
    # autocast gives each of the five matrices behind a norm a copy of its input
    inputs = (5 if compute < 4 else 2) * compute * hidden
    # queries and keys after their rotation, values; the mixed heads, before and after they are put side by side
    attention = compute * (3 * queries + 2 * keys) + 4 * heads
    swiglu = 4 * compute * wide
    everything = norms + inputs + attention + swiglu
    # the results of the seven matrices and of attention, with its sums
    products = compute * (queries + 2 * keys + 2 * wide + 2 * hidden) + compute * queries + 4 * heads
    kept = {"none": everything, "selective": 4 * hidden + products, "full": 4 * hidden}
    # the first thing that a block needs is its input, which is kept in any case
    again = {"none": 0, "selective": everything - products - 4 * hidden, "full": everything - 4 * hidden}
    return BlockActivations(
        kept=kept[checkpointing],
        recomputed=again[checkpointing],
        # gradients of the two factors of SwiGLU, of the stream and of what a matrix reads of it
        workspace=2 * compute * wide + (4 + compute) * hidden,
    )


def outer_activations(config: ModelConfig) -> int:
    """Bytes per token outside the blocks: the last norm, the states it gives, the angles of the rotation."""
    return 4 * (3 * config.hidden_size + 1 + config.head_size)
