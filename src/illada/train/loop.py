"""The training loop: take a batch, take a step, tell what happened, keep what must survive.

`fit` knows nothing of diffusion: the loss is a callable, and so are validation and saving. One step is

    batch -> micro-batches -> loss, backward -> clip -> learning rate -> AdamW -> moving average

and after it, where it is due: metrics, the held-out bound, a checkpoint, or leaving because a signal asked for it. Of
several processes each takes its rows of the batch; what they decide, they decide alike.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor

from illada.data.loader import Loader
from illada.data.packing import Batch
from illada.distributed.activation import ActivationCheckpointing
from illada.distributed.float8 import Float8
from illada.distributed.mesh import Mesh, alone
from illada.distributed.sharding import Accumulation
from illada.model.transformer import Transformer
from illada.track.console import ProgressBar
from illada.track.sinks import Sink
from illada.track.throughput import Throughput
from illada.train.faults import FaultConfig, FaultyStepError, LossWatch, Rollbacks
from illada.train.interrupt import SIGNALS, GracefulStop
from illada.train.learning_rate import LearningRate, LearningRateState, PlateauDetector
from illada.train.optimizer import WeightAverage
from illada.train.step import Loss, Precision, backward, descend


def tokens_of(batch: Batch) -> int:
    """The normaliser of pre-training: the tokens of the step."""
    return batch.token_count


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What the loop itself must know."""

    steps: int = 1000
    batch_size: int = 32
    """Rows of one optimisation step, over all micro-batches."""
    micro_batch_size: int | None = None
    """Rows of one forward of one process; None: all of its rows of the step. It changes the memory, not the result."""
    accumulation: Accumulation = "whole"
    """Between the micro-batches of a step, whole: every process keeps the gathered weights and the gradient of its own
    rows, and nothing is sent. sharded: both are divided again after each; it takes less memory."""
    precision: Precision = "auto"
    """fp32 or bf16 autocast; auto: bf16 where the device computes in it."""
    compile: bool = False
    """torch.compile the blocks: slower to start, faster once it runs."""
    activation_checkpointing: ActivationCheckpointing = "none"
    """What is computed twice instead of kept: nothing, what is cheap (selective), or every block (full)."""
    fp8: Float8 = "none"
    """Matrix products of the blocks in fp8, on GPUs that have it (extra `fp8`): one scale per tensor, or per row."""
    log_every: int = 10
    validate_every: int = 100
    """Steps between two measurements of the held-out bound; it is measured before the first step and after the last
    too. 0: at those two times only."""
    checkpoint_every: int = 100
    """Steps between two checkpoints; the last step always makes one."""
    keep_last: int = 2
    keep_every: int | None = None
    """Keep the checkpoints whose step is a multiple of this, beside the newest `keep_last`."""
    background_saving: bool = True
    """Write checkpoints beside the training; it takes memory for a copy of all that is saved."""
    max_minutes: float | None = None
    """Save and leave after this time, as on a signal."""

    def __post_init__(self) -> None:
        """Refuse counts that are not positive."""
        for name in ("steps", "batch_size", "log_every", "checkpoint_every", "keep_last"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.validate_every < 0:
            raise ValueError(f"validate_every must be 0 or more, got {self.validate_every}")
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise ValueError(f"micro_batch_size must be at least 1, got {self.micro_batch_size}")
        for name, choices in (
            ("accumulation", Accumulation),
            ("activation_checkpointing", ActivationCheckpointing),
            ("fp8", Float8),
        ):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}; got {value!r}")

    def micro_batches(self, parts: int) -> int:
        """Forwards of one process per step, when a batch is cut into so many parts."""
        rows = self.batch_size // parts
        return -(-rows // (self.micro_batch_size or rows))


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """What one step gave."""

    step: int
    examples: tuple[int, int]
    """(first, count) of those it was trained on."""
    loss: Tensor
    """The part of this process."""
    gradient_norm: Tensor
    """Of the whole gradient."""


@dataclass(kw_only=True)
class TrainState:
    """All that changes while a run goes on; `plain` and the tensors are all that a resume needs."""

    model: Transformer
    optimizer: torch.optim.Optimizer
    loader: Loader
    average: WeightAverage | None = None
    step: int = 0
    """Steps taken."""
    tokens: int = 0
    """Tokens trained on, padding apart."""
    rate: LearningRateState = field(default_factory=LearningRateState)
    watch: LossWatch = field(default_factory=LossWatch)
    rollbacks: Rollbacks = field(default_factory=Rollbacks)
    """Kept in a file of the run, not in its checkpoints: they outlive the steps that are taken back."""
    unread: list["StepValues"] = field(default_factory=list)
    """The newest steps, whose values are still on the device: no step waits for them."""
    loss_sum: float = 0.0
    """Of the steps since the last metrics, as far as they were read."""
    loss_steps: int = 0
    gradient_norm: float = 0.0
    """Of the last step that was read, before clipping."""

    def plain(self) -> dict[str, Any]:
        """The part of the state that is no tensor, as JSON data."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "loader": self.loader.state(),
            "learning_rate": asdict(self.rate),
            "watch": asdict(self.watch),
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
        }

    def load_plain(self, state: dict[str, Any]) -> None:
        """Put back what `plain` gave."""
        self.step, self.tokens = state["step"], state["tokens"]
        self.loss_sum, self.loss_steps = state["loss_sum"], state["loss_steps"]
        self.unread, self.watch = [], LossWatch(**state.get("watch", {}))
        self.loader.load_state(state["loader"])
        rate = dict(state["learning_rate"])
        self.rate = LearningRateState(detector=PlateauDetector(**rate["detector"]), plateau_at=rate["plateau_at"])


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls when it is due."""

    validate: Callable[[], dict[str, float]]
    save: Callable[[bool], None]
    """Save a checkpoint; told whether to wait until it is written."""
    sink: Sink
    progress: ProgressBar
    throughput: Throughput
    saving_failed: Callable[[], bool] = _never
    """Whether the checkpoint that was being written could not be: then the next is saved at once."""
    measure: Callable[[], dict[str, float]] = dict
    """More metrics, where they are due."""


def fit(
    state: TrainState,
    config: LoopConfig,
    *,
    loss: Loss,
    schedule: LearningRate,
    clip_norm: float | None,
    hooks: Hooks,
    normaliser: Callable[[Batch], int] = tokens_of,
    mesh: Mesh | None = None,
    faults: FaultConfig | None = None,
    stop: GracefulStop | None = None,
) -> str | None:
    """Train until `config.steps` are taken; returns why it left before that, or None.

    `normaliser` is asked for the rows of each process; the sum over all, which belongs to the whole step, is handed to
    the loss of each micro-batch.

    Raises:
        FaultyStepError: a loss is no number, or beyond the bound of `faults`; the last checkpoint is from before that.
        ValueError: the rows of a step do not divide among the processes.
    """
    mesh = mesh or alone(state.model.embedding.weight.device)
    faults = faults or FaultConfig()
    check_divisible(config, mesh)
    deadline = math.inf if config.max_minutes is None else time.monotonic() + 60 * config.max_minutes
    if state.step == 0:
        hooks.sink.log(0, hooks.validate())
    hooks.throughput.restart(state.tokens)
    with stop or GracefulStop() as stop:
        while state.step < config.steps:
            _take_step(
                state, config, mesh, loss=loss, schedule=schedule, clip_norm=clip_norm, hooks=hooks, of=normaliser
            )
            _after_step(state, config, mesh, schedule=schedule, hooks=hooks, faults=faults)
            reason, failed = _agree(mesh, stop, deadline=deadline, saving_failed=hooks.saving_failed())
            if state.step % config.checkpoint_every == 0 or state.step == config.steps or reason or failed:
                read_values(state, mesh, faults)
                hooks.save(bool(reason) or state.step == config.steps)
            if reason and state.step < config.steps:
                return reason
    return None


def check_divisible(config: LoopConfig, mesh: Mesh) -> None:
    """Refuse a step whose rows do not divide among the processes.

    Raises:
        ValueError: they do not.
    """
    if config.batch_size % mesh.data_size:
        raise ValueError(
            f"a step of {config.batch_size} rows (batch_size) does not divide among {mesh.data_size} processes "
            "(mesh.replicate x mesh.shard): change the one or the other"
        )


def _take_step(
    state: TrainState,
    config: LoopConfig,
    mesh: Mesh,
    *,
    loss: Loss,
    schedule: LearningRate,
    clip_norm: float | None,
    hooks: Hooks,
    of: Callable[[Batch], int],
) -> None:
    while count := state.rollbacks.examples_to_pass(state.loader.example):
        state.loader.skip(count)
    first = state.loader.example
    with hooks.throughput.waiting():
        batch = state.loader.next(config.batch_size, rank=mesh.data_rank, world=mesh.data_size)
    counted, tokens = mesh.total_of_rows(float(of(batch)), float(batch.token_count))
    part = backward(
        state.model,
        batch,
        loss=loss,
        normaliser=max(1, int(counted)),
        micro_batch_size=config.micro_batch_size,
        precision=config.precision,
        accumulation=config.accumulation,
    )
    rate = schedule.rate(state.step, steps=config.steps, plateau_at=state.rate.plateau_at)
    rate *= state.rollbacks.rate_factor(state.step)
    norm = descend(state.model, state.optimizer, state.average, rate=rate, clip_norm=clip_norm)
    state.step += 1
    state.tokens += int(tokens)
    values = StepValues(step=state.step, examples=(first, config.batch_size), loss=part, gradient_norm=norm)
    state.unread.append(values)


def _after_step(
    state: TrainState,
    config: LoopConfig,
    mesh: Mesh,
    *,
    schedule: LearningRate,
    hooks: Hooks,
    faults: FaultConfig,
) -> None:
    """Metrics and validation, where they are due."""
    hooks.progress.advance(state.step)
    last = state.step == config.steps
    if state.step % config.log_every == 0 or last:
        read_values(state, mesh, faults)
        mean = state.loss_sum / state.loss_steps
        state.loss_sum, state.loss_steps = 0.0, 0
        state.rate.read(mean, step=state.step, schedule=schedule)
        metrics = {
            "train/loss_nats_per_token": mean,
            "train/gradient_norm": state.gradient_norm,
            "train/learning_rate": state.optimizer.param_groups[0]["lr"],
            "train/tokens": float(state.tokens),
        }
        hooks.sink.log(state.step, metrics | hooks.measure() | hooks.throughput.read(state.tokens))
    if last or (config.validate_every and state.step % config.validate_every == 0):
        hooks.sink.log(state.step, hooks.validate())
        hooks.throughput.restart(state.tokens)


def read_values(state: TrainState, mesh: Mesh, faults: FaultConfig) -> None:
    """Fetch the values of the newest steps from the device, and judge them.

    Raises:
        FaultyStepError: one of them must not have happened.
    """
    unread, state.unread = state.unread, []
    if not unread:
        return
    parts = torch.stack([values.loss.double() for values in unread]).tolist()
    norms = torch.stack([values.gradient_norm.double() for values in unread]).tolist()
    for values, loss, norm in zip(unread, mesh.total_of_positions(*parts), norms, strict=True):
        if wrong := state.watch.read(loss, norm, faults):
            raise FaultyStepError(wrong, step=values.step, examples=values.examples)
        state.loss_sum += loss
        state.loss_steps += 1
        state.gradient_norm = norm


def _agree(mesh: Mesh, stop: GracefulStop, *, deadline: float, saving_failed: bool) -> tuple[str | None, bool]:
    """(why to leave, if there is a reason anywhere; whether saving failed anywhere): the same on all processes."""
    asked = [stop.requested == name for name in SIGNALS]
    *signals, late, failed = mesh.processes.anywhere(*asked, time.monotonic() > deadline, saving_failed)
    reasons = [name for name, sent in zip(SIGNALS, signals, strict=True) if sent]
    return (reasons[0] if reasons else "its time is up" if late else None), failed
