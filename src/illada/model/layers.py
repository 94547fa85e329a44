"""The parts of a block: RMSNorm, grouped-query attention, SwiGLU, and the pre-norm residual block around them."""

import torch.nn.functional as F
from torch import nn

from illada.model.attention import AttentionLayout, attend
from illada.model.cache import CachedLayer
from illada.model.config import ModelConfig
from illada.model.rotary import Angles, rotate
from illada.shapes import Hidden


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x²) + eps) in fp32, cast back, times weight (arXiv 1910.07467)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.hidden_size, eps=config.norm_eps)

    def forward(self, x: Hidden) -> Hidden:
        """Normalise the last dimension."""
        normed = F.rms_norm(x.float(), self.normalized_shape, eps=self.eps).to(x.dtype)
        return normed * self.weight


class SelfAttention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        query_size, kv_size = config.heads * config.head_size, config.kv_heads * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)

    def forward(self, x: Hidden, angles: Angles, layout: AttentionLayout | CachedLayer) -> Hidden:
        """Mix the positions that see one another."""
        query, key, value = (
            project(x).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = attend(rotate(query, angles), rotate(key, angles), value, layout)
        output: Hidden = self.o_proj(mixed.transpose(1, 2).flatten(-2))
        return output


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.ffn_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.ffn_size, bias=False)
        self.down_proj = nn.Linear(config.ffn_size, config.hidden_size, bias=False)

    def forward(self, x: Hidden) -> Hidden:
        """Transform each position by itself."""
        output: Hidden = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output


class Block(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config)
        self.attention = SelfAttention(config)
        self.mlp_norm = RMSNorm(config)
        self.mlp = SwiGLU(config)

    def forward(self, x: Hidden, angles: Angles, layout: AttentionLayout | CachedLayer) -> Hidden:
        """One layer."""
        x = x + self.attention(self.attention_norm(x), angles, layout)
        output: Hidden = x + self.mlp(self.mlp_norm(x))
        return output
