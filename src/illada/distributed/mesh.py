"""The mesh: what each process of a job is for.

    replicate   whole copies of the sharded model; they exchange gradients once a step
    shard       weights, gradients and moments divided among neighbours (FSDP2, arXiv 2304.11277)
    context     each row divided among neighbours, for long rows
    tensor      each matrix divided among neighbours (arXiv 1909.08053)

Processes next to each other in number are neighbours in the last dimension, so the talkative ones share a machine.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from illada.distributed.processes import Processes

_DIMENSIONS = ("replicate", "shard", "context", "tensor")


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many processes share what; it decides speed and memory, and nothing about the result."""

    shard: int | None = None
    """Processes that divide weights, gradients and moments; None: all that the others leave."""
    replicate: int = 1
    """Copies of the sharded model: shard within a machine, replicate between machines."""
    context: int = 1
    """Processes that divide every row."""
    tensor: int = 1
    """Processes that divide every matrix of a block."""

    def __post_init__(self) -> None:
        """Refuse sizes that are not positive."""
        for name in _DIMENSIONS:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"mesh.{name} must be at least 1, got {value}")

    def sizes(self, processes: int) -> dict[str, int]:
        """The size of every dimension for so many processes.

        Raises:
            ValueError: the mesh has more or fewer places than there are processes.
        """
        others = self.replicate * self.context * self.tensor
        shard = max(1, processes // others) if self.shard is None else self.shard
        sizes = dict(zip(_DIMENSIONS, (self.replicate, shard, self.context, self.tensor), strict=True))
        if prod(sizes.values()) != processes:
            shape = " x ".join(f"{size} {name}" for name, size in sizes.items())
            raise ValueError(
                f"a mesh of {shape} has {prod(sizes.values())} places, but there are {processes} processes: "
                "change --mesh.* or torchrun's --nproc-per-node"
            )
        return sizes


class Mesh:
    """The place of this process in the mesh, and the groups it talks to."""

    def __init__(self, config: MeshConfig, *, processes: Processes, device: torch.device) -> None:
        """Lay the processes out.

        Raises:
            ValueError: the mesh has more or fewer places than there are processes.
        """
        self.processes, self.device = processes, device
        self.sizes = sizes = config.sizes(processes.size)
        self.data_size = sizes["replicate"] * sizes["shard"]
        """Parts that a batch is cut into."""
        rest, self.tensor_rank = divmod(processes.rank, sizes["tensor"])
        self.data_rank, self.context_rank = divmod(rest, sizes["context"])
        self.parameters: DeviceMesh | None = None
        """[replicate, shard * context]: over which FSDP keeps the weights; None where it need not."""
        self.tensor: DeviceMesh | None = None
        self.context: DeviceMesh | None = None
        if processes.size == 1:
            return
        whole = sizes["shard"] * sizes["context"]
        # two views of the same order of processes: FSDP divides weights over shard and context as if they were one
        layout = init_device_mesh(
            device.type,
            (sizes["replicate"], whole, sizes["tensor"]),
            mesh_dim_names=("replicate", "shard", "tensor"),
        )
        if sizes["replicate"] * whole > 1:
            self.parameters = layout["replicate", "shard"]
        if sizes["tensor"] > 1:
            self.tensor = layout["tensor"]
        if sizes["context"] > 1:
            rows = (self.data_size, sizes["context"], sizes["tensor"])
            self.context = init_device_mesh(device.type, rows, mesh_dim_names=("data", "context", "tensor"))["context"]

    @property
    def alone(self) -> bool:
        """Whether this process has the whole model and all rows."""
        return self.processes.size == 1

    @property
    def counts(self) -> bool:
        """Whether what this process counts of its rows counts: of those that share rows, one does."""
        return self.tensor_rank == 0 and self.context_rank == 0

    def total_of_rows(self, *values: float) -> list[float]:
        """Values that belong to the rows of a process, summed over the batch."""
        return self.processes.total(*(value if self.counts else 0.0 for value in values))

    def total_of_positions(self, *values: float) -> list[float]:
        """Values that belong to the positions of a process (its part of its rows), summed over the batch."""
        return self.processes.total(*(value if self.tensor_rank == 0 else 0.0 for value in values))


def alone(device: torch.device) -> Mesh:
    """The mesh of a single process."""
    return Mesh(MeshConfig(), processes=Processes(), device=device)
