"""A plan: how a run is divided, what it needs of every GPU, how long it takes, and what it writes.

    days = tokens · FLOPs per token · recomputation / (GPUs · peak FLOP/s · MFU)

MFU is assumed, not computed: `MFU_SOURCE` says from where. Change it when you have measured your own.
"""

from dataclasses import dataclass, replace

from illada.data.shards import token_dtype
from illada.distributed.activation import ActivationCheckpointing
from illada.model.accounting import count_flops, count_parameters
from illada.model.config import ModelConfig
from illada.planning.division import Division, Wanted, divide
from illada.planning.hardware import GPUS, Gpu
from illada.planning.memory import Work

ASSUMED_MFU = 0.40
"""Fraction of the peak that the matrix products of a run use, those computed twice not counted."""

MFU_SOURCE = "38 to 43 % on 8,192 to 16,384 H100, Llama 3 (arXiv 2407.21783, table 4)"

MASKED_ON_AVERAGE = 0.5
"""Part of the positions that meet the vocabulary: t is uniform between 0 and 1."""

_SELECTIVE = 0.1
"""Of the time that full checkpointing costs, what selective costs: it saves 90 % (arXiv 2205.05198, abstract)."""

_MOST_GPUS = 1 << 14
_DAY = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is to be trained."""

    model: ModelConfig
    length: int
    """Tokens of a row."""
    tokens: int
    wanted: Wanted
    average: bool = False
    """Whether a moving average of the weights is kept."""
    checkpoint_every: int = 1000
    keep_last: int = 2
    keep_every: int | None = None
    """As in `illada.train.loop.LoopConfig`."""

    def __post_init__(self) -> None:
        """Refuse a run of nothing."""
        if self.tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {self.tokens}")

    @property
    def steps(self) -> int:
        """Optimisation steps."""
        return -(-self.tokens // (self.wanted.batch_size * self.length))


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes that a run reads and writes."""

    checkpoint: int
    """One from which it can be resumed: weights and moments in fp32."""
    exported: int
    """The model alone, in bf16."""
    kept: int
    """All checkpoints that are there at the end."""
    tokens: int
    """The shards, if no token is read twice."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that `illada plan` prints."""

    run: Run
    gpu: Gpu
    gpus: int
    mfu: float
    division: Division
    parameters: int
    flops_per_token: float
    """Forward and backward, nothing computed twice."""
    recomputation: float
    """By how much longer a step takes because of what is computed twice: 1 is not at all."""
    disk: Disk
    would_fit: tuple[str, ...]
    """Where it does not fit: what would."""

    @property
    def tokens_per_second(self) -> float:
        """Of all GPUs together."""
        return self.gpus * self.gpu.peak_flops * self.mfu / (self.flops_per_token * self.recomputation)

    @property
    def seconds_per_step(self) -> float:
        """Time of one optimisation step."""
        return self.run.wanted.batch_size * self.run.length / self.tokens_per_second

    @property
    def days(self) -> float:
        """Time of the whole run, without interruptions."""
        return self.run.tokens / self.tokens_per_second / _DAY

    @property
    def gpu_hours(self) -> float:
        """What it is billed by."""
        return 24 * self.days * self.gpus


def plan(run: Run, *, gpus: int, gpu: Gpu, mfu: float = ASSUMED_MFU) -> Plan:
    """Plan a run on so many GPUs of one kind.

    Raises:
        ValueError: no GPU at all, an MFU outside 0 .. 1, or rows that do not divide among the GPUs.
    """
    if gpus < 1:
        raise ValueError(f"gpus must be at least 1, got {gpus}")
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu must lie between 0 and 1, got {mfu}")
    division = divide(_work(run), run.wanted, gpus=gpus, gpu=gpu)
    flops = count_flops(run.model, length=run.length, head_fraction=MASKED_ON_AVERAGE)
    return Plan(
        run=run,
        gpu=gpu,
        gpus=gpus,
        mfu=mfu,
        division=division,
        parameters=count_parameters(run.model).total,
        flops_per_token=flops.training,
        recomputation=1 + _twice(division.work.checkpointing) * (flops.blocks + flops.attention) / flops.training,
        disk=_disk(run),
        would_fit=() if division.fits else tuple(_would_fit(run, gpus=gpus, gpu=gpu)),
    )


def _work(run: Run) -> Work:
    return Work(model=run.model, length=run.length, average=run.average)


def _twice(checkpointing: ActivationCheckpointing) -> float:
    """How often the forward pass of the blocks is computed once more."""
    return {"none": 0.0, "selective": _SELECTIVE, "full": 1.0}[checkpointing]


def _disk(run: Run) -> Disk:
    parameters = count_parameters(run.model).total
    checkpoint = (16 if run.average else 12) * parameters
    for_good = 0 if run.keep_every is None else run.steps // run.keep_every
    return Disk(
        checkpoint=checkpoint,
        exported=2 * parameters,
        kept=checkpoint * (for_good + min(run.keep_last, -(-run.steps // run.checkpoint_every))),
        tokens=run.tokens * token_dtype(run.model.vocab_size).itemsize,
    )


def _would_fit(run: Run, *, gpus: int, gpu: Gpu) -> list[str]:
    """What else would do: freedom for what was fixed, more GPUs, other GPUs."""
    found = []
    free = replace(run, wanted=Wanted(batch_size=run.wanted.batch_size))
    if run.wanted != free.wanted and (division := _fitting(free, gpus, gpu)):
        work = division.work
        found.append(
            f"{gpus} x {gpu.name} with shard {work.shard}, tensor {work.tensor}, {work.checkpointing} checkpointing, "
            f"{work.micro_batch} rows per forward"
        )
    more = gpus * 2
    while more <= _MOST_GPUS and not _fitting(run, more, gpu):
        more *= 2
    if more <= _MOST_GPUS:
        found.append(f"{more} x {gpu.name}")
    others = [other for other in GPUS.values() if other.usable > gpu.usable and _fitting(run, gpus, other)]
    return found + [f"{gpus} x {other.name}" for other in others]


def _fitting(run: Run, gpus: int, gpu: Gpu) -> Division | None:
    try:
        division = divide(_work(run), run.wanted, gpus=gpus, gpu=gpu)
    except ValueError:
        return None
    return division if division.fits else None
