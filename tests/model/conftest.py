"""Small models, and attention and the whole Transformer a second time: written from their formulas, in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

SMALL = {"vocab_size": 50, "hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn_size": 72, "max_length": 64}


def _small(**changes: object) -> Transformer:
    model = Transformer(ModelConfig(**SMALL | changes))
    initialize(model, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            # as trained weights are: far enough from their start that attention is sharp and norms differ
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            else:
                parameter.mul_(8)
    return model.eval()


@pytest.fixture
def small() -> Callable[..., Transformer]:
    return _small


def naive_attention(query: Tensor, key: Tensor, value: Tensor, segments: Tensor, *, causal: bool) -> Tensor:
    """Head by head and query by query, over the keys of the same segment; float64 in, float64 out."""
    batch, heads, length, size = query.shape
    mixed = torch.zeros(batch, heads, length, size, dtype=torch.float64)
    for row in range(batch):
        for head in range(heads):
            shared = head // (heads // key.shape[1])
            for here in range(length):
                seen = [
                    there
                    for there in range(length)
                    if segments[row, there] == segments[row, here] and (there <= here or not causal)
                ]
                scores = [float(query[row, head, here] @ key[row, shared, there]) / math.sqrt(size) for there in seen]
                weights = torch.tensor(scores, dtype=torch.float64).exp()
                mixed[row, head, here] = (weights / weights.sum()) @ value[row, shared, seen]
    return mixed


def naive_transformer(model: Transformer, tokens: Tensor) -> Tensor:
    """Hidden states of ONE dense row, [length] -> [length, hidden], in float64."""
    config = model.config
    weights = {name: value.double() for name, value in model.state_dict().items()}
    length, half = len(tokens), config.head_size // 2

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + config.norm_eps).sqrt() * weights[f"{name}.weight"]

    def turn(x: Tensor) -> Tensor:
        rate = torch.tensor([config.rope_theta ** (-2 * k / config.head_size) for k in range(half)]).double()
        angle = torch.arange(length).double()[:, None] * rate
        first, second = x[:, :half], x[:, half:]
        return torch.cat((first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()), 1)

    def project(x: Tensor, name: str, head: int) -> Tensor:
        rows = slice(head * 2 * half, (head + 1) * 2 * half)
        bias = weights[f"{name}.bias"][rows] if config.qkv_bias else 0
        return x @ weights[f"{name}.weight"][rows].T + bias

    def attention(x: Tensor, name: str) -> Tensor:
        heads = []
        for head in range(config.heads):
            shared = head // (config.heads // config.kv_heads)
            parts = [(head, "q_proj"), (shared, "k_proj"), (shared, "v_proj")]
            query, key, value = (project(x, f"{name}.{kind}", number) for number, kind in parts)
            scores = turn(query) @ turn(key).T / math.sqrt(config.head_size)
            if config.attention == "causal":
                scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(-1) @ value)
        return torch.cat(heads, -1) @ weights[f"{name}.o_proj.weight"].T

    x = weights["embedding.weight"][tokens]
    for layer in range(config.layers):
        block = f"blocks.{layer}"
        x = x + attention(norm(x, f"{block}.attention_norm"), f"{block}.attention")
        y = norm(x, f"{block}.mlp_norm")
        gate = y @ weights[f"{block}.mlp.gate_proj.weight"].T
        up = y @ weights[f"{block}.mlp.up_proj.weight"].T
        x = x + (gate / (1 + (-gate).exp()) * up) @ weights[f"{block}.mlp.down_proj.weight"].T
    states = norm(x, "norm")
    # state i - 1 tells of token i; that of the first token has nobody before it
    return torch.stack([states[max(place - 1, 0)] for place in range(length)]) if config.shifted else states


@pytest.fixture
def attention_by_hand() -> Callable[..., Tensor]:
    return naive_attention


@pytest.fixture
def transformer_by_hand() -> Callable[[Transformer, Tensor], Tensor]:
    return naive_transformer
