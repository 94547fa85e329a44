"""Tensor parallelism: the matrices of every block divided among processes (Megatron-LM, arXiv 1909.08053).

Queries, keys, values, gate and up are divided by columns, the two matrices behind them by rows: each process computes
some heads and some of the wide layer, and two sums per block put the parts together. The embedding, the norms and the
LM head are whole on every process, which computes them alike.
"""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer


def check_divisible(config: ModelConfig, size: int) -> None:
    """Refuse a model whose heads or wide layer do not divide among `size` processes.

    Raises:
        ValueError: they do not.
    """
    for name in ("heads", "kv_heads", "ffn_size"):
        if (value := getattr(config, name)) % size:
            raise ValueError(f"mesh.tensor {size} does not divide the model's {name} of {value}: choose a smaller one")


def divide_matrices(model: Transformer, mesh: DeviceMesh) -> None:
    """Divide the blocks of `model` among the processes of a mesh of one dimension.

    Raises:
        ValueError: the heads or the wide layer do not divide.
    """
    check_divisible(model.config, mesh.size())
    whole = Replicate()
    plan = {
        # the input of several matrices: its gradient is summed once, not once per matrix
        "attention": PrepareModuleInput(input_layouts=(whole, None, None), desired_input_layouts=(whole, None, None)),
        "mlp": PrepareModuleInput(input_layouts=(whole,), desired_input_layouts=(whole,)),
        "attention.q_proj": ColwiseParallel(),
        "attention.k_proj": ColwiseParallel(),
        "attention.v_proj": ColwiseParallel(),
        "attention.o_proj": RowwiseParallel(),
        "mlp.gate_proj": ColwiseParallel(),
        "mlp.up_proj": ColwiseParallel(),
        "mlp.down_proj": RowwiseParallel(),
    }
    for block in model.blocks:
        parallelize_module(block, mesh, plan)
