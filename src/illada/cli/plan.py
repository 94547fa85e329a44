"""`illada plan RECIPE`: memory per GPU, a division that fits, days and disk, before anything is started."""

import json
import math
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from illada.cli.flags import parse, take_recipe
from illada.config import to_dict
from illada.distributed.activation import ActivationCheckpointing
from illada.planning.division import Wanted
from illada.planning.hardware import named_gpu
from illada.planning.plan import ASSUMED_MFU, MFU_SOURCE, Plan, Run, plan
from illada.recipes.pretraining import PRETRAINING
from illada.train.pretrain import PretrainConfig

_PARTS = {
    "master_weights": "weights, fp32, this GPU's part",
    "gradients": "gradients",
    "moments": "AdamW's moments, fp32",
    "average": "moving average, fp32",
    "working_weights": "weights in bf16, in use",
    "activations": "activations",
    "loss": "loss: states, logits, gradients of both",
    "communication": "buffers of communication",
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a recipe needs: memory per GPU, a division that fits, days, disk."""

    gpus: int = 8
    gpu: str = "h200"
    """a100, h100, h200 or b200."""
    tokens: float | None = None
    """Tokens to train on, 12e12 for one; by default the recipe's steps."""
    mfu: float = ASSUMED_MFU
    """Assumed part of the peak that is used."""
    batch_size: int | None = None
    """Rows of a step, over all GPUs; by default the recipe's."""
    micro_batch_size: int | None = None
    """Rows of one forward of a GPU; by default as many as fit."""
    activation_checkpointing: ActivationCheckpointing | None = None
    """none, selective or full; by default the cheapest that fits."""
    shard: int | None = None
    """GPUs that divide weights, gradients and moments; by default a machine's, more where that does not fit."""
    tensor: int | None = None
    """GPUs that divide every matrix; by default as few as fit."""
    json: bool = False
    """Print JSON, in bytes, seconds and FLOPs."""


def command(arguments: list[str]) -> int:
    """Plan and print."""
    name, rest = take_recipe(arguments, PRETRAINING, command="plan")
    chosen = parse(Arguments, rest, command="plan")
    planned = plan(_run(PRETRAINING[name](), chosen), gpus=chosen.gpus, gpu=named_gpu(chosen.gpu), mfu=chosen.mfu)
    if chosen.json:
        print(json.dumps(as_data(name, planned), indent=2))  # noqa: T201  # for programs: no wrapping, no colours
    else:
        _print_tables(name, planned)
    return 0


def _run(config: PretrainConfig, chosen: Arguments) -> Run:
    loop, length = config.loop, config.packing.length
    if chosen.tokens is not None and not 1 <= chosen.tokens < math.inf:
        raise ValueError(f"tokens must be a number of at least 1, got {chosen.tokens}")
    return Run(
        model=config.model,
        length=length,
        tokens=loop.steps * loop.batch_size * length if chosen.tokens is None else int(chosen.tokens),
        wanted=Wanted(
            batch_size=loop.batch_size if chosen.batch_size is None else chosen.batch_size,
            micro_batch_size=chosen.micro_batch_size,
            checkpointing=chosen.activation_checkpointing,
            shard=chosen.shard,
            tensor=chosen.tensor,
        ),
        average=config.average_decay is not None,
        checkpoint_every=loop.checkpoint_every,
        keep_last=loop.keep_last,
        keep_every=loop.keep_every,
    )


def launch(name: str, planned: Plan) -> str:
    """The command that starts the run on one machine of several, or on the only one."""
    work, machines = planned.division.work, -(-planned.gpus // planned.gpu.per_machine)
    processes = min(planned.gpus, planned.gpu.per_machine)
    words = [f"torchrun --nnodes {machines} --nproc-per-node {processes} --no-python"]
    words = (words if planned.gpus > 1 else []) + [f"illada pretrain {name} --steps {planned.run.steps}"]
    if planned.gpus > 1:
        words.append(f"--mesh.shard {work.shard} --mesh.replicate {work.replicate} --mesh.tensor {work.tensor}")
    words.append(f"--batch-size {planned.run.wanted.batch_size} --micro-batch-size {work.micro_batch}")
    if work.gathers and work.micro_steps > 1:
        words.append(f"--accumulation {work.accumulation}")
    return " ".join([*words, f"--activation-checkpointing {work.checkpointing}"])


def as_data(name: str, planned: Plan) -> dict[str, Any]:
    """All numbers of a plan as plain data."""
    work, memory = planned.division.work, planned.division.memory
    return {
        "recipe": name,
        "gpus": planned.gpus,
        "gpu": to_dict(planned.gpu) | {"usable": planned.gpu.usable},
        "parameters": planned.parameters,
        "tokens": planned.run.tokens,
        "length": planned.run.length,
        "steps": planned.run.steps,
        "fits": planned.division.fits,
        "would_fit": list(planned.would_fit),
        "division": {
            "shard": work.shard,
            "replicate": work.replicate,
            "tensor": work.tensor,
            "batch_size": planned.run.wanted.batch_size,
            "micro_batch_size": work.micro_batch,
            "micro_steps": work.micro_steps,
            "accumulation": work.accumulation,
            "activation_checkpointing": work.checkpointing,
        },
        "launch": launch(name, planned),
        "memory_bytes_per_gpu": memory.parts() | {"total": memory.total},
        "flops_per_token": planned.flops_per_token,
        "recomputation": planned.recomputation,
        "mfu": {"assumed": planned.mfu, "source": MFU_SOURCE if planned.mfu == ASSUMED_MFU else "given"},
        "tokens_per_second": planned.tokens_per_second,
        "seconds_per_step": planned.seconds_per_step,
        "days": planned.days,
        "gpu_hours": planned.gpu_hours,
        "disk_bytes": to_dict(planned.disk),
    }


def _print_tables(name: str, planned: Plan) -> None:
    console = Console(highlight=False)
    run, gpu = planned.run, planned.gpu
    title = f"{name}: {_short(planned.parameters)} parameters, {_short(run.tokens)} tokens, {planned.gpus} x {gpu.name}"
    console.print(title, style="bold")
    if not planned.division.fits:
        needed, there = planned.division.memory.total, gpu.usable
        console.print(
            f"it does not fit: {_gigabytes(needed)} per GPU at least, of {_gigabytes(there)} that can be used"
        )
        console.print(f"it would fit on: {'; or '.join(planned.would_fit) or 'none of the GPUs known here'}")
        console.print("what follows is the division that needs least")
    console.print()
    for table in (_division(planned), _memory(planned), _time(planned), _disk(planned)):
        console.print(table, "", sep="\n")
    if planned.mfu == ASSUMED_MFU:
        console.print(f"MFU: {MFU_SOURCE}")
    console.print(f"memory and peak: {gpu.source}")
    console.print(f"\n{launch(name, planned)}", soft_wrap=True)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="", show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    return table


def _division(planned: Plan) -> Table:
    work, table = planned.division.work, _table("division")
    table.add_row("  shard x replicate x tensor", f"{work.shard} x {work.replicate} x {work.tensor}")
    table.add_row("  rows of a step", f"{planned.run.wanted.batch_size:,} of {planned.run.length:,} tokens")
    table.add_row("  rows of a forward, and forwards of a step, per GPU", f"{work.micro_batch}, {work.micro_steps}")
    if work.gathers and work.micro_steps > 1:
        table.add_row("  kept between them, weights and gradients", work.accumulation)
    table.add_row("  activation checkpointing", work.checkpointing)
    return table


def _memory(planned: Plan) -> Table:
    memory, table = planned.division.memory, _table("memory per GPU, at its peak")
    for part, size in memory.parts().items():
        if size:
            table.add_row(f"  {_PARTS[part]}", _gigabytes(size))
    table.add_row("  together", _gigabytes(memory.total))
    table.add_row(f"  can be used, of {_gigabytes(planned.gpu.memory)}", _gigabytes(planned.gpu.usable))
    return table


def _time(planned: Plan) -> Table:
    table = _table("time")
    table.add_row("  FLOPs per token", f"{planned.flops_per_token:.3g}")
    table.add_row("  MFU, assumed" if planned.mfu == ASSUMED_MFU else "  MFU, as given", f"{planned.mfu:.0%}")
    if planned.recomputation > 1:
        table.add_row("  computed twice", f"{planned.recomputation - 1:.1%}")
    table.add_row("  tokens per second", _short(planned.tokens_per_second))
    table.add_row(f"  {planned.run.steps:,} steps, seconds each", f"{planned.seconds_per_step:.3g}")
    table.add_row("  days", f"{planned.days:,.1f}")
    table.add_row("  GPU hours", _short(planned.gpu_hours))
    return table


def _disk(planned: Plan) -> Table:
    disk, table = planned.disk, _table("disk")
    table.add_row("  a checkpoint to resume from", _gigabytes(disk.checkpoint))
    table.add_row("  all that are kept", _gigabytes(disk.kept))
    table.add_row("  the exported model, bf16", _gigabytes(disk.exported))
    table.add_row("  the tokens, none of them twice", _gigabytes(disk.tokens))
    return table


def _short(count: int | float) -> str:
    """Three figures and a letter."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
