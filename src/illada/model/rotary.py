"""Rotary position embedding in the half-split layout of GPT-NeoX and Llama (RoFormer, arXiv 2104.09864)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Angles = tuple[Float[Tensor, "rows 1 length head"], Float[Tensor, "rows 1 length head"]]
"""Cosine and sine of every position's angles for each coordinate, fp32, the sine negative in the first half; `rows` is
1 where all rows count alike."""


def rotary_angles(positions: Int[Tensor, "rows length"], head_size: int, theta: float) -> Angles:
    """Angles position * theta^(-2k / head_size) for coordinates k and k + head_size/2, as (cos, -sin | sin) in fp32."""
    exponent = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device) / head_size
    angles = positions[:, None, :, None].to(torch.float32) * theta**-exponent
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(
    states: Float[Tensor, "batch heads length head"], angles: Angles
) -> Float[Tensor, "batch heads length head"]:
    """Turn coordinate k together with coordinate k + head/2, in fp32, and return the dtype that came in."""
    cos, sin = angles
    values = states.to(torch.float32)
    # a roll by half the head exchanges the two halves
    turned = values * cos + values.roll(values.shape[-1] // 2, dims=-1) * sin
    return turned.to(states.dtype)
