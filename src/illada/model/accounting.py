"""What a Transformer costs before it is built: parameters, FLOPs per token, bytes of memory."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Parameters of a model; a tied head counts once, as embedding."""

    total: int
    embedding: int
    """Embedding and, where it is a matrix of its own, LM head."""

    @property
    def non_embedding(self) -> int:
        """All parameters but embedding and head."""
        return self.total - self.embedding


@dataclass(frozen=True, kw_only=True)
class FlopCount:
    """Floating-point operations per token (a multiply-add is two), matrix products only."""

    blocks: float
    """Projections and MLPs of all layers, forward."""
    attention: float
    """q kᵀ and the mixing of v at the given row length, forward; the causal model needs half."""
    head: float
    """LM head, forward, at the fraction of positions that meet the vocabulary."""

    @property
    def forward(self) -> float:
        """One forward pass."""
        return self.blocks + self.attention + self.head

    @property
    def training(self) -> float:
        """Forward and backward: three times the forward."""
        return 3 * self.forward


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes for training one row per device without sharding or recomputation."""

    weights: int
    gradients: int
    optimizer: int
    """AdamW's two moments in fp32."""
    casts: int
    """Copies of the blocks' weights in the compute dtype, which autocast keeps from the forward to the backward."""
    activations: int
    """What the backward pass keeps of one row, in the compute dtype, LM head apart (it runs in chunks)."""

    @property
    def training(self) -> int:
        """All parts together."""
        return self.weights + self.gradients + self.optimizer + self.casts + self.activations


@lru_cache(maxsize=64)
def count_parameters(config: ModelConfig) -> ParameterCount:
    """Count the tensors of a model built on the meta device: what is counted is what is built."""
    with torch.device("meta"):
        model = Transformer(config)
    embedding = model.embedding.weight.numel() + (0 if model.head is None else model.head.weight.numel())
    return ParameterCount(total=sum(p.numel() for p in model.parameters()), embedding=embedding)


def count_flops(config: ModelConfig, *, length: int, head_fraction: float = 1.0) -> FlopCount:
    """FLOPs per token in rows of `length`, with the LM head at `head_fraction` of the positions."""
    norms = (2 * config.layers + 1) * config.hidden_size
    biases = config.layers * (config.heads + 2 * config.kv_heads) * config.head_size if config.qkv_bias else 0
    matrices = count_parameters(config).non_embedding - norms - biases
    seen = (length + 1) / 2 if config.attention == "causal" else length
    return FlopCount(
        blocks=2.0 * matrices,
        attention=4.0 * config.layers * seen * config.heads * config.head_size,
        head=2.0 * head_fraction * config.hidden_size * config.vocab_size,
    )


def estimate_memory(
    config: ModelConfig, *, length: int, weight_bytes: int = 4, compute_bytes: int = 2
) -> MemoryEstimate:
    """Memory to train on rows of `length`: weights and gradients of `weight_bytes` each, AdamW moments in fp32.

    Kept per token and layer, in the compute dtype: what the projections and MLP matrices read, queries, keys, values,
    the mixed heads before and after they are put side by side, and four tensors of SwiGLU; in fp32: what both norms
    read and what they give before their weight, their scales, and the log-sum-exp of every head. Autocast casts
    besides: each of the five matrices behind a norm keeps a copy of its input, and every matrix one of itself.
    """
    count = count_parameters(config)
    cast = compute_bytes < weight_bytes
    key_value = config.kv_heads * config.head_size
    in_compute_dtype = ((5 if cast else 2) + 3) * config.hidden_size + 2 * key_value + 4 * config.ffn_size
    in_fp32 = 4 * config.hidden_size + config.heads + 2
    final_norm = 2 * config.hidden_size + 1
    per_token = config.layers * (compute_bytes * in_compute_dtype + 4 * in_fp32) + 4 * (final_norm + config.head_size)
    return MemoryEstimate(
        weights=weight_bytes * count.total,
        gradients=weight_bytes * count.total,
        optimizer=8 * count.total,
        casts=compute_bytes * count.non_embedding if cast else 0,
        activations=per_token * length,
    )
