"""The norm of a gradient whose parts lie on several processes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from illada.distributed.placement import local, whole


def by_mesh(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The tensors in groups that are divided over the same mesh: only those can be worked on together."""
    groups: dict[DeviceMesh | None, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.device_mesh if isinstance(tensor, DTensor) else None, []).append(tensor)
    return list(groups.values())


@torch.no_grad()
def clip_gradients(model: nn.Module, limit: float | None) -> Tensor:
    """Scale the gradient of `model` to a norm of `limit` at most; returns what its norm was, on every process alike."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norms = [whole(torch.nn.utils.get_total_norm(group)) for group in by_mesh(gradients)]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if len(norms) > 1 else norms[0]
    if limit is not None:
        # the sum keeps a gradient of zeros what it is, as `torch.nn.utils.clip_grad_norm_` does
        scale = torch.clamp(limit / (norm + 1e-6), max=1.0)
        torch._foreach_mul_([local(gradient) for gradient in gradients], scale)
    return norm
