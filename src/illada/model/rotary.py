"""Rotary position embedding in the half-split layout of GPT-NeoX and Llama (RoFormer, arXiv 2104.09864)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Angles = tuple[Float[Tensor, "rows 1 length half"], Float[Tensor, "rows 1 length half"]]
"""Cosine and sine of every position's angles, fp32; `rows` is 1 where all rows count alike."""


def rotary_angles(positions: Int[Tensor, "rows length"], head_size: int, theta: float) -> Angles:
    """Angles position * theta^(-2k / head_size) for k = 0 .. head_size/2 - 1, as (cos, sin) in fp32."""
    exponent = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device) / head_size
    angles = positions[:, None, :, None].to(torch.float32) * theta**-exponent
    return angles.cos(), angles.sin()


def rotate(
    states: Float[Tensor, "batch heads length head"], angles: Angles
) -> Float[Tensor, "batch heads length head"]:
    """Turn coordinate k together with coordinate k + head/2, in fp32, and return the dtype that came in."""
    cos, sin = angles
    first, second = states.to(torch.float32).chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(states.dtype)
