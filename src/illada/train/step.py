"""One optimisation step: micro-batches -> loss, backward -> clip -> learning rate -> AdamW -> moving average."""

import contextlib
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from illada.data.packing import Batch
from illada.distributed.gradients import clip_gradients
from illada.distributed.sharding import Accumulation, accumulate
from illada.model.transformer import Transformer
from illada.train.optimizer import WeightAverage

Precision = Literal["auto", "fp32", "bf16"]


@runtime_checkable
class Loss(Protocol):
    """What the loop descends: the sum over a micro-batch divided by what is common to the whole step."""

    def __call__(self, model: Transformer, batch: Batch, *, normaliser: int) -> Tensor:
        """A micro-batch's part of the step's loss: the scalar to take the gradient of."""
        ...


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The autocast dtype, or None for plain fp32.

    `auto` takes bf16 on a GPU that has it and on a CPU whose matrix units compute in it; elsewhere bf16 is emulated
    and slower than fp32.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if device.type == "cpu" and native else None


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which the forward pass runs."""
    dtype = compute_dtype(precision, device)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def backward(
    model: Transformer,
    batch: Batch,
    *,
    loss: Loss,
    normaliser: int,
    micro_batch_size: int | None,
    precision: Precision,
    accumulation: Accumulation = "whole",
) -> Tensor:
    """Gradients of the rows of this process, micro-batch by micro-batch; behind the last they are those of all.

    Returns this process's part of the loss of the step, without waiting for the device.
    """
    device = model.embedding.weight.device
    total = torch.zeros((), device=device)
    size = micro_batch_size or len(batch)
    for start in range(0, len(batch), size):
        accumulate(model, accumulation, last=start + size >= len(batch))
        with autocast(precision, device):
            value = loss(model, batch.rows(start, start + size), normaliser=normaliser)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += value.detach()
    return total


def descend(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    *,
    rate: float,
    clip_norm: float | None,
) -> Tensor:
    """Clip, step, average; returns the norm of the gradient before clipping."""
    norm = clip_gradients(model, clip_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if average is not None:
        average.update(model)
    return norm
