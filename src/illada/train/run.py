"""A training run in its folder: what pre-training and fine-tuning have in common.

RUN/config.json          the configuration, as it was run
RUN/metrics.jsonl        one JSON object per reading
RUN/checkpoints/step_*/  see `illada.checkpoint.native`
RUN/rollbacks.jsonl      where it went back from a fault: see `illada.train.faults`
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import tyro
from rich.console import Console

from illada.checkpoint.adapter import AdapterCard
from illada.checkpoint.native import copy_tensors, list_checkpoints
from illada.checkpoint.saver import Saver
from illada.config import from_json, to_dict, to_json
from illada.data.loader import Loader
from illada.data.tokenizer import Tokenizer
from illada.distributed.mesh import Mesh, MeshConfig, alone
from illada.distributed.placement import fill
from illada.distributed.processes import peers_in_sight
from illada.distributed.sharding import Layout, distribute, release
from illada.distributed.stragglers import ForwardClock, spread_of_processes
from illada.durable import write_text
from illada.model.accounting import count_flops
from illada.model.attention import Share
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.track.console import ProgressBar
from illada.track.sinks import Broadcast, JsonlFile, TensorBoard
from illada.track.throughput import Throughput, peak_memory
from illada.train.faults import FaultConfig, FaultyStepError
from illada.train.learning_rate import LearningRate, WarmupConstantCosine
from illada.train.loop import Hooks, LoopConfig, TrainState, check_divisible, fit
from illada.train.objective import NoiseConfig, Objective, ObjectiveName
from illada.train.optimizer import AdamWConfig, WeightAverage, build_optimizer, trained
from illada.train.session import Session
from illada.train.step import compute_dtype

_GO_ON = "start the same command with --resume, or let torchrun do so with --max-restarts"
_NEUTRAL_OF_THE_LOOP = (
    "max_minutes",
    "micro_batch_size",
    "accumulation",
    "compile",
    "activation_checkpointing",
    "background_saving",
    "keep_last",
    "keep_every",
)
"""Settings that decide nothing about the result, but for rounding: a run may resume with others."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every configuration of a run has."""

    objective: ObjectiveName = "diffusion"
    """diffusion, for a bidirectional model; next_token, for a causal one: its autoregressive twin."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    optimizer: AdamWConfig = field(default_factory=AdamWConfig)
    learning_rate: LearningRate = field(default_factory=WarmupConstantCosine)
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)
    """Its flags stand without a prefix: --steps, not --loop.steps."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    average_decay: float | None = None
    """Decay of a moving average of the weights; where given, the average is what is measured and saved as the model."""
    tensorboard: bool = False
    device: str = "auto"
    """auto: the first GPU, else the CPU."""
    seed: int = 0


ConfigT = TypeVar("ConfigT", bound=RunConfig)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    folder: Path
    checkpoint: Path
    steps: int
    stopped_by: str | None
    """Why it left before its last step: a signal, or its time limit."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a run trains, on what, and how it is measured."""

    title: str
    """What the progress bar calls it."""
    model: Transformer
    tokenizer: Tokenizer
    loader: Loader
    data_identity: list[str]
    """Fingerprints of the training data: a run resumes on the same."""
    row_length: int
    objective: Objective
    measure: Callable[[Transformer], dict[str, float]]
    """Metrics on held-out data."""
    values: Callable[[str, torch.Size], torch.Tensor] | None = None
    """What a parameter of this name and shape begins with; None: the model has its values already. With it, `model`
    may be on the meta device: then no process ever holds all of it."""
    adapter: AdapterCard | None = None
    """Where an adapter trains, and the rest of the model does not."""

    @property
    def model_config(self) -> ModelConfig:
        """The shape of the model."""
        return self.model.config


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse to write over a run.

    Raises:
        FileExistsError: `folder` holds a run and `resume` is not set.
    """
    if not resume and (folder / "config.json").exists():
        raise FileExistsError(f"{folder} holds a run already: add --resume to go on with it, or choose another folder")


def execute(
    config: ConfigT, folder: Path, task: Task, *, resume: bool, console: Console, mesh: Mesh | None = None
) -> Outcome:
    """Train from the beginning, or from the newest sound checkpoint in `folder`.

    Raises:
        ValueError: the configuration or the data is not the run's, or no checkpoint is fit for use.
        OSError: the disk is full, say; the newest complete checkpoint stays.
        FloatingPointError: a step went wrong, and going back has not helped.
        PeerLostError: another process of the job has gone.
    """
    mesh = mesh or alone(torch.device("cpu"))
    check_divisible(config.loop, mesh)
    clock = ForwardClock(task.model, device=mesh.device)
    state = new_state(config, task, mesh)
    if mesh.processes.first:
        _check_or_write_config(config, folder, resume=resume)
    session = Session(
        folder=folder,
        state=state,
        mesh=mesh,
        tokenizer=task.tokenizer,
        model_config=task.model_config,
        data_identity=task.data_identity,
        adapter=task.adapter,
        faults=config.faults,
        saver=Saver(
            folder / "checkpoints",
            keep_last=config.loop.keep_last,
            keep_every=config.loop.keep_every,
            background=config.loop.background_saving,
            cuda=mesh.device.type == "cuda",
        ),
        report=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
    )
    with peers_in_sight(mesh.processes, advice=_GO_ON):
        resumed = session.begin()
        stopped_by = _train(config, session, task, clock, console, resumed=resumed)
    newest = list_checkpoints(folder / "checkpoints")[-1][1]
    return Outcome(folder=folder, checkpoint=newest, steps=state.step, stopped_by=stopped_by)


def new_state(config: RunConfig, task: Task, mesh: Mesh) -> TrainState:
    """The state of a run before its first step, its model laid out over the mesh."""
    layout = Layout(
        dtype=compute_dtype(config.loop.precision, mesh.device),
        activation_checkpointing=config.loop.activation_checkpointing,
        compile=config.loop.compile,
        float8=config.loop.fp8,
        keep_gathered=config.loop.accumulation == "whole" and config.loop.micro_batches(mesh.data_size) > 1,
    )
    distribute(task.model, mesh, layout)
    if task.values is not None:
        fill(task.model, task.values)
    return TrainState(
        model=task.model,
        optimizer=build_optimizer(task.model, config.optimizer),
        loader=task.loader,
        average=None if config.average_decay is None else WeightAverage(task.model, decay=config.average_decay),
    )


def _check_or_write_config(config: ConfigT, folder: Path, *, resume: bool) -> None:
    path = folder / "config.json"
    if not (resume and path.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, to_json(config))
        return
    began = to_dict(from_json(type(config), path.read_text()))
    now = to_dict(config)
    began["mesh"], began["faults"]["pause_minutes"] = now["mesh"], now["faults"]["pause_minutes"]
    for name in _NEUTRAL_OF_THE_LOOP:
        began["loop"][name] = now["loop"][name]
    if now["loop"]["precision"] != "auto":  # else the device decides in which numbers is computed
        began["device"] = now["device"]
    if differing := _differences(began, now):
        raise ValueError(f"the run in {folder} began with another configuration: {'; '.join(differing)}")


def _differences(began: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in began.keys() | now.keys():
        old, new = began.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} was {old} and is {new}")
    return sorted(found)


def _train(
    config: RunConfig, session: Session, task: Task, clock: ForwardClock, console: Console, *, resumed: bool
) -> str | None:
    state, mesh = session.state, session.mesh
    head = task.objective.head_fraction
    flops = count_flops(task.model_config, length=task.row_length, head_fraction=head).training
    throughput = Throughput(flops_per_token=flops, device=mesh.device, devices=mesh.processes.size)
    measured = _Measured(state)

    def validate() -> dict[str, float]:
        with measured as model:
            return task.measure(model)

    with ProgressBar(console, title=task.title, total_steps=config.loop.steps) as progress:
        sinks, metrics = _sinks(config, session.folder, progress, resume_at=state.step if resumed else -1, mesh=mesh)
        hooks = Hooks(
            validate=validate,
            save=session.save,
            sink=sinks,
            progress=progress,
            throughput=throughput,
            saving_failed=lambda: session.saver.failed,
            measure=lambda: _measure_processes(session, clock),
        )
        try:
            while True:
                try:
                    return fit(
                        state,
                        config.loop,
                        loss=task.objective,
                        normaliser=task.objective.normaliser,
                        schedule=config.learning_rate,
                        clip_norm=config.optimizer.clip_norm,
                        hooks=hooks,
                        mesh=mesh,
                        faults=config.faults,
                        stop=session.stop,
                    )
                except FaultyStepError as fault:
                    session.roll_back(fault, metrics)
        finally:
            session.saver.close()
            sinks.close()


def _sinks(
    config: RunConfig, folder: Path, progress: ProgressBar, *, resume_at: int, mesh: Mesh
) -> tuple[Broadcast, JsonlFile | None]:
    """Where metrics go: nowhere but on the first process."""
    if not mesh.processes.first:
        return Broadcast([]), None
    # without a checkpoint the run begins again, and so do its metrics
    metrics = JsonlFile(folder / "metrics.jsonl", resume_at=resume_at)
    more = [TensorBoard(folder / "tensorboard")] if config.tensorboard else []
    return Broadcast([metrics, progress, *more]), metrics


def _measure_processes(session: Session, clock: ForwardClock) -> dict[str, float]:
    """Memory, and how evenly the processes compute."""
    mesh = session.mesh
    each = mesh.processes.gather([clock.read(), float(peak_memory(mesh.device))])
    seconds, memory = zip(*each, strict=True)
    metrics = {"train/peak_memory_gib": max(memory) / 2**30} | session.saver.timings()
    return metrics | (spread_of_processes(seconds) if len(each) > 1 else {})


class _Measured:
    """While entered, the model holds the weights that are to be measured, and computes whole rows."""

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._live: dict[str, torch.Tensor] = {}
        self._share: Share | None = None

    def __enter__(self) -> Transformer:
        model, average = self._state.model, self._state.average
        release(model)
        self._share, model.share = model.share, None  # without gradients there is room for whole rows
        if average is not None:
            self._live = {name: parameter.detach().clone() for name, parameter in trained(model).items()}
            copy_tensors(trained(model), average.tensors, source="the average")
        return model

    def __exit__(self, *exception: object) -> None:
        release(self._state.model)
        self._state.model.share = self._share
        if self._live:
            copy_tensors(trained(self._state.model), self._live, source="the run")
