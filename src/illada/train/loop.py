"""The training loop: take a batch, take a step, tell what happened, keep what must survive.

`fit` knows nothing of diffusion: the loss is a callable, and so are validation and saving. One step is

    batch -> micro-batches -> loss, backward -> clip -> learning rate -> AdamW -> moving average

and after it, where it is due: metrics, the held-out bound, a checkpoint, or leaving because a signal asked for it.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from illada.data.loader import Loader
from illada.data.packing import Batch
from illada.model.transformer import Transformer
from illada.track.console import ProgressBar
from illada.track.sinks import Sink
from illada.track.throughput import Throughput
from illada.train.interrupt import GracefulStop
from illada.train.learning_rate import LearningRate, LearningRateState, PlateauDetector
from illada.train.optimizer import WeightAverage

log = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16"]


@runtime_checkable
class Loss(Protocol):
    """What the loop descends: the sum over a micro-batch divided by what is common to the whole step."""

    def __call__(self, model: Transformer, batch: Batch, *, normaliser: int) -> Tensor:
        """A micro-batch's part of the step's loss: the scalar to take the gradient of."""
        ...


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
    """Rows of one forward; None: all of the step's. It changes the memory, not the result."""
    precision: Precision = "auto"
    """fp32 or bf16 autocast; auto: bf16 where the device computes in it."""
    compile: bool = False
    """torch.compile the model: slower to start, faster once it runs."""
    log_every: int = 10
    validate_every: int = 100
    """Steps between two measurements of the held-out bound; it is measured before the first step and after the last
    too. 0: at those two times only."""
    checkpoint_every: int = 100
    """Steps between two checkpoints; the last step always makes one."""
    keep_last: int = 2
    keep_every: int | None = None
    """Keep the checkpoints whose step is a multiple of this, beside the newest `keep_last`."""
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
    loss_sum: Tensor | float = 0.0
    """Of the steps since the last reading; stays on the device, so that no step waits for it."""
    loss_steps: int = 0
    gradient_norm: Tensor | float = 0.0
    """Of the last step, before clipping."""

    def plain(self) -> dict[str, Any]:
        """The part of the state that is no tensor, as JSON data."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "loader": self.loader.state(),
            "learning_rate": asdict(self.rate),
            "loss_sum": float(self.loss_sum),
            "loss_steps": self.loss_steps,
        }

    def load_plain(self, state: dict[str, Any]) -> None:
        """Put back what `plain` gave."""
        self.step, self.tokens = state["step"], state["tokens"]
        self.loss_sum, self.loss_steps = state["loss_sum"], state["loss_steps"]
        self.loader.load_state(state["loader"])
        rate = dict(state["learning_rate"])
        self.rate = LearningRateState(detector=PlateauDetector(**rate["detector"]), plateau_at=rate["plateau_at"])


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls when it is due."""

    validate: Callable[[], dict[str, float]]
    save: Callable[[], None]
    sink: Sink
    progress: ProgressBar
    throughput: Throughput


def fit(
    state: TrainState,
    config: LoopConfig,
    *,
    loss: Loss,
    schedule: LearningRate,
    clip_norm: float | None,
    hooks: Hooks,
    normaliser: Callable[[Batch], int] = tokens_of,
) -> str | None:
    """Train until `config.steps` are taken; returns why it left before that, or None.

    `normaliser` is asked once for the whole batch of a step and handed to the loss of each of its micro-batches.

    Raises:
        FloatingPointError: the loss is no number; the last checkpoint is from before that.
    """
    deadline = math.inf if config.max_minutes is None else time.monotonic() + 60 * config.max_minutes
    forward = compiled(state.model) if config.compile else state.model
    if state.step == 0:
        hooks.sink.log(0, hooks.validate())
    hooks.throughput.restart(state.tokens)
    with GracefulStop() as stop:
        while state.step < config.steps:
            batch = state.loader.next(config.batch_size)
            total = _backward(state, config, batch, forward=forward, loss=loss, normaliser=normaliser(batch))
            _descend(state, config, schedule=schedule, clip_norm=clip_norm)
            state.step += 1
            state.tokens += batch.token_count
            _after_step(state, config, total, schedule=schedule, hooks=hooks)
            reason = stop.requested or ("its time is up" if time.monotonic() > deadline else None)
            if state.step % config.checkpoint_every == 0 or state.step == config.steps or reason:
                _check_finite(state)
                hooks.save()
            if reason and state.step < config.steps:
                return reason
    return None


def compiled(model: Transformer) -> Transformer:
    """The model through torch.compile; shares its weights with `model`."""
    result: Transformer = torch.compile(model, dynamic=False)  # type: ignore[assignment]  # it answers as the model does
    return result


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


def _backward(
    state: TrainState, config: LoopConfig, batch: Batch, *, forward: Transformer, loss: Loss, normaliser: int
) -> Tensor:
    """Gradients of one step, micro-batch by micro-batch; returns its loss without waiting for the device."""
    device = state.model.embedding.weight.device
    total = torch.zeros((), device=device)
    size = config.micro_batch_size or config.batch_size
    for start in range(0, len(batch), size):
        with autocast(config.precision, device):
            value = loss(forward, batch.rows(start, start + size), normaliser=normaliser)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += value.detach()
    return total


def _descend(state: TrainState, config: LoopConfig, *, schedule: LearningRate, clip_norm: float | None) -> None:
    """Clip, step, average."""
    limit = math.inf if clip_norm is None else clip_norm
    state.gradient_norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), limit)
    rate = schedule.rate(state.step, steps=config.steps, plateau_at=state.rate.plateau_at)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        state.average.update(state.model)


def _after_step(
    state: TrainState, config: LoopConfig, step_loss: Tensor, *, schedule: LearningRate, hooks: Hooks
) -> None:
    """Metrics and validation, where they are due."""
    state.loss_sum = state.loss_sum + step_loss
    state.loss_steps += 1
    hooks.progress.advance(state.step)
    last = state.step == config.steps
    if state.step % config.log_every == 0 or last:
        _check_finite(state)
        mean = float(state.loss_sum) / state.loss_steps
        state.loss_sum, state.loss_steps = 0.0, 0
        state.rate.read(mean, step=state.step, schedule=schedule)
        rate = state.optimizer.param_groups[0]["lr"]
        metrics = {
            "train/loss_nats_per_token": mean,
            "train/gradient_norm": float(state.gradient_norm),
            "train/learning_rate": rate,
            "train/tokens": float(state.tokens),
        }
        hooks.sink.log(state.step, metrics | hooks.throughput.read(state.tokens))
    if last or (config.validate_every and state.step % config.validate_every == 0):
        hooks.sink.log(state.step, hooks.validate())
        hooks.throughput.restart(state.tokens)


def _check_finite(state: TrainState) -> None:
    for what, value in (("loss", float(state.loss_sum)), ("norm of the gradient", float(state.gradient_norm))):
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the {what} is {value} at step {state.step}: lower the learning rate and resume from the last "
                "checkpoint"
            )
