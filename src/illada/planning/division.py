"""How a run is divided among GPUs: the first division that fits, the cheapest kind of it first.

Tried in this order, every time with the most rows per forward that fit:

    1. weights sharded inside a machine, and copies of that between machines: its own links are the fastest
    2. weights sharded over more and more machines
    3. matrices divided as well (tensor parallel), among 2, 4 or 8 of a machine: it waits twice per block and pass

and in each of them with no activation checkpointing, then selective, then full; and in each of these with what is kept
between the forwards of a step whole, then sharded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from illada.distributed.activation import ActivationCheckpointing
from illada.distributed.sharding import Accumulation
from illada.model.config import ModelConfig
from illada.planning.hardware import Gpu
from illada.planning.memory import Memory, Work, peak_memory


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a division must keep to; None leaves it open."""

    batch_size: int
    """Rows of a step, over all GPUs."""
    micro_batch_size: int | None = None
    checkpointing: ActivationCheckpointing | None = None
    shard: int | None = None
    tensor: int | None = None

    def __post_init__(self) -> None:
        """Refuse counts that are not positive."""
        for name in ("batch_size", "micro_batch_size", "shard", "tensor"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class Division:
    """One way to divide a run, and what each GPU then holds."""

    work: Work
    memory: Memory
    fits: bool

    @property
    def rows_at_a_time(self) -> int:
        """Rows that all GPUs take in one forward."""
        return self.work.micro_batch * self.work.shard * self.work.replicate


def divide(work: Work, wanted: Wanted, *, gpus: int, gpu: Gpu) -> Division:
    """The first division of `work` over the GPUs that fits; where none does, the one that needs least memory.

    Raises:
        ValueError: there is no such division at all: the rows of a step do not divide, say.
    """
    smallest: Division | None = None
    for candidate in _candidates(work, wanted, gpus=gpus, gpu=gpu):
        memory = peak_memory(candidate)
        found = Division(work=candidate, memory=memory, fits=memory.total <= gpu.usable)
        if found.fits:
            return found
        if smallest is None or memory.total < smallest.memory.total:
            smallest = found
    if smallest is None:
        raise ValueError(_why_none(work.model, wanted, gpus))
    return smallest


def _candidates(work: Work, wanted: Wanted, *, gpus: int, gpu: Gpu) -> Iterator[Work]:
    ways: Sequence[ActivationCheckpointing] = get_args(ActivationCheckpointing)
    for tensor, shard in _meshes(work.model, wanted, gpus=gpus, gpu=gpu):
        processes = gpus // tensor
        if wanted.batch_size % processes:
            continue
        rows = wanted.batch_size // processes
        for checkpointing in ways if wanted.checkpointing is None else (wanted.checkpointing,):
            for micro_batch, accumulation in _micro_batches(rows, wanted.micro_batch_size):
                yield replace(
                    work,
                    micro_batch=micro_batch,
                    micro_steps=-(-rows // micro_batch),
                    accumulation=accumulation,
                    shard=shard,
                    replicate=processes // shard,
                    tensor=tensor,
                    checkpointing=checkpointing,
                )


def _meshes(model: ModelConfig, wanted: Wanted, *, gpus: int, gpu: Gpu) -> Iterator[tuple[int, int]]:
    """(tensor, shard) in the order in which they are tried."""
    for tensor in (1, 2, 4, 8) if wanted.tensor is None else (wanted.tensor,):
        if gpus % tensor or any(size % tensor for size in (model.heads, model.kv_heads, model.ffn_size)):
            continue
        sizes = [size for size in range(1, gpus // tensor + 1) if gpus // tensor % size == 0]
        inside = max(size for size in sizes if size * tensor <= max(gpu.per_machine, tensor))
        for shard in [size for size in sizes if size >= inside] if wanted.shard is None else [wanted.shard]:
            if shard in sizes:
                yield tensor, shard


def _micro_batches(rows: int, wanted: int | None) -> Iterator[tuple[int, Accumulation]]:
    """(rows of one forward, what is kept between them), the most rows first: those that divide a process's evenly."""
    sizes = [size for size in range(rows, 0, -1) if rows % size == 0] if wanted is None else [min(wanted, rows)]
    for accumulation in get_args(Accumulation):
        for size in sizes:
            if accumulation == "whole" or size < rows:  # with one forward there is nothing between
                yield size, accumulation


def _why_none(model: ModelConfig, wanted: Wanted, gpus: int) -> str:
    tensor = wanted.tensor or 1
    if gpus % tensor or (wanted.shard is not None and gpus // tensor % wanted.shard):
        return f"{gpus} GPUs do not divide into meshes of shard {wanted.shard or 1} x tensor {tensor}: choose divisors"
    if any(size % tensor for size in (model.heads, model.kv_heads, model.ffn_size)):
        return (
            f"tensor {tensor} does not divide the model's {model.heads} heads, {model.kv_heads} KV heads and FFN of "
            f"{model.ffn_size}: choose a smaller one"
        )
    return (
        f"a step of {wanted.batch_size} rows (batch_size) does not divide among {gpus // tensor} GPUs: "
        f"choose a multiple, or another number of GPUs"
    )
