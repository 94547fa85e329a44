"""A model laid out over the mesh: matrices divided, activations checkpointed, blocks compiled, weights sharded.

Weights, gradients and moments are in fp32 and divided among processes (FSDP2). For the computation the weights of one
block at a time are gathered, in the dtype that is computed in; gradients are summed in fp32.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from illada.distributed.activation import ActivationCheckpointing, checkpoint_activations
from illada.distributed.context import divide_rows
from illada.distributed.float8 import Float8, use_float8
from illada.distributed.mesh import Mesh
from illada.distributed.tensor_parallel import divide_matrices
from illada.model.transformer import Transformer

Accumulation = Literal["whole", "sharded"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model is laid out, beside the mesh."""

    dtype: torch.dtype | None = None
    """In which the weights are gathered; None: fp32."""
    activation_checkpointing: ActivationCheckpointing = "none"
    compile: bool = False
    float8: Float8 = "none"
    keep_gathered: bool = False
    """Keep weights that were gathered from the first forward of a step to its last backward."""


def distribute(model: Transformer, mesh: Mesh, layout: Layout) -> None:
    """Lay `model` out over `mesh`, in place; its parameters may be on the meta device, and are then without values.

    Raises:
        ValueError: the model cannot be divided so, or the device cannot compute so.
        ImportError: fp8 is asked for, and torchao is not installed.
    """
    if layout.float8 != "none" and mesh.tensor is not None:
        raise ValueError(f"fp8 does not go with matrices that are divided (mesh.tensor {mesh.tensor.size()})")
    use_float8(model, layout.float8, device=mesh.device)
    if mesh.tensor is not None:
        divide_matrices(model, mesh.tensor)
    if mesh.context is not None:
        divide_rows(model, mesh.context)
    checkpoint_activations(model, layout.activation_checkpointing)
    if layout.compile:
        compile_blocks(model)
    if mesh.parameters is not None:
        _shard(model, mesh.parameters, layout)
    if model.embedding.weight.is_meta:
        model.to_empty(device=mesh.device)
    else:
        model.to(mesh.device)


def compile_blocks(model: Transformer) -> None:
    """torch.compile every block: they share one graph, so it takes the time of one, whatever the depth."""
    for block in model.blocks:
        block.forward = torch.compile(block.forward, dynamic=False)


def accumulate(model: nn.Module, how: Accumulation, *, last: bool) -> None:
    """Say whether the next backward pass is the last of the step.

    whole: gradients are summed over processes in the last one only; until then each process keeps the whole gradient
    of its own rows. sharded: each sums over those that share the weights, and keeps its part; only the sum over copies
    waits for the last.
    """
    if isinstance(model, FSDPModule):
        model.set_is_last_backward(last)
        if how == "whole":
            model.set_requires_gradient_sync(last)
            model.set_reshard_after_backward(last)
        else:
            model.set_requires_all_reduce(last)


def release(model: nn.Module) -> None:
    """Let go of weights that were gathered for a forward pass without a backward pass.

    Before parameters are read or written by name: what is gathered is a copy that would be out of date.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _shard(model: Transformer, mesh: DeviceMesh, layout: Layout) -> None:
    # the residual stream keeps its dtype: what enters a block is not cast
    policy = MixedPrecisionPolicy(param_dtype=layout.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=not layout.keep_gathered)
    # the rest of the model: the head's matrix stays gathered behind the forward pass, for the loss to use
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # the loss is divided by what is common to the whole step: its parts are added, not averaged
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
