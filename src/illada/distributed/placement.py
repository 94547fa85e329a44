"""Tensors that are divided among processes, and the part of them that is here.

A divided tensor is a `DTensor`: it has the shape of the whole, and holds a block of it. What is not divided is an
ordinary tensor; these functions take either.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """The block of `tensor` that this process holds; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def block_of(tensor: Tensor) -> tuple[slice, ...]:
    """Where in the whole tensor the block of this process lies."""
    if not isinstance(tensor, DTensor):
        return tuple(slice(0, size) for size in tensor.shape)
    chunk = tensor.__create_chunk_list__()[0]  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return tuple(slice(at, at + size) for at, size in zip(chunk.offsets, chunk.sizes, strict=True))


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, on every process: all of them must ask for it."""
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full


@torch.no_grad()
def fill(model: nn.Module, value: Callable[[str, torch.Size], Tensor]) -> None:
    """Set every parameter of `model` to `value(name, shape)`, which gives whole tensors; no process asks another."""
    for name, parameter in model.named_parameters():
        local(parameter).copy_(value(name, parameter.shape)[block_of(parameter)])
