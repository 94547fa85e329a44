"""A training run in its folder: what pre-training and fine-tuning have in common.

RUN/config.json          the configuration, as it was run
RUN/metrics.jsonl        one JSON object per reading
RUN/checkpoints/step_*/  see `illada.checkpoint.native`
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import tyro
from rich.console import Console

from illada.checkpoint.adapter import AdapterCard
from illada.checkpoint.native import (
    checkpoint_path,
    copy_tensors,
    list_checkpoints,
    load_checkpoint,
    retain,
    save_checkpoint,
)
from illada.config import from_json, to_dict, to_json
from illada.data.loader import Loader
from illada.data.tokenizer import Tokenizer
from illada.durable import write_text
from illada.model.accounting import count_flops
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.track.console import ProgressBar
from illada.track.sinks import Broadcast, JsonlFile, Sink, TensorBoard
from illada.track.throughput import Throughput
from illada.train.learning_rate import LearningRate, WarmupConstantCosine
from illada.train.loop import Hooks, LoopConfig, TrainState, fit
from illada.train.objective import NoiseConfig, Objective, ObjectiveName
from illada.train.optimizer import (
    AdamWConfig,
    WeightAverage,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    trained,
)

_LIVE = "live/"
"""Prefix of the weights that train, beside the optimizer's tensors of a run whose model is the average."""


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


def execute(config: ConfigT, folder: Path, task: Task, *, resume: bool, console: Console) -> Outcome:
    """Train from the beginning, or from the newest checkpoint in `folder`.

    Raises:
        ValueError: the configuration or the data is not the run's, or a checkpoint is not fit for use.
        OSError: the disk is full, say; the newest complete checkpoint stays.
    """
    state = new_state(config, task)
    _check_or_write_config(config, folder, resume=resume)
    checkpoints = list_checkpoints(folder / "checkpoints")
    if checkpoints:
        restore(state, checkpoints[-1][1], tokenizer=task.tokenizer, data_identity=task.data_identity)
    # without a checkpoint the run begins again, and so do its metrics
    stopped_by = _train(config, folder, state, task, console, resume_at=state.step if checkpoints else -1)
    newest = list_checkpoints(folder / "checkpoints")[-1][1]
    return Outcome(folder=folder, checkpoint=newest, steps=state.step, stopped_by=stopped_by)


def new_state(config: RunConfig, task: Task) -> TrainState:
    """The state of a run before its first step."""
    return TrainState(
        model=task.model,
        optimizer=build_optimizer(task.model, config.optimizer),
        loader=task.loader,
        average=None if config.average_decay is None else WeightAverage(task.model, decay=config.average_decay),
    )


def restore(state: TrainState, checkpoint: Path, *, tokenizer: Tokenizer, data_identity: list[str]) -> None:
    """Put a run back to where `checkpoint` was saved.

    Raises:
        ValueError: the checkpoint is damaged, of another shape, of another tokenizer or data, or holds no training
            state.
    """
    saved = load_checkpoint(checkpoint, with_optimizer=True)
    if saved.tokenizer.fingerprint != tokenizer.fingerprint:
        raise ValueError(f"{checkpoint} was trained with another tokenizer than the corpus has")
    if "step" not in saved.state:
        raise ValueError(f"{checkpoint} holds weights but no training state: it can be loaded, not resumed")
    if saved.state["corpus"] != data_identity:
        raise ValueError(f"{checkpoint} was trained on another corpus: the sources have changed since the run began")
    weights, average = saved.weights, {}
    if state.average is not None:
        # with an average, `weights` of the checkpoint are the averaged ones: the live ones lie with the optimizer
        average = weights
        weights = {key[len(_LIVE) :]: value for key, value in saved.optimizer.items() if key.startswith(_LIVE)}
        state.average.load(average)
    copy_tensors(trained(state.model), weights, source=str(checkpoint))
    load_optimizer_tensors(state.model, state.optimizer, saved.optimizer)
    state.load_plain(saved.state)


def _check_or_write_config(config: ConfigT, folder: Path, *, resume: bool) -> None:
    path = folder / "config.json"
    if not (resume and path.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, to_json(config))
        return
    began = to_dict(from_json(type(config), path.read_text()))
    now = to_dict(config)
    # how long a session may take decides nothing about the result
    began["loop"]["max_minutes"] = now["loop"]["max_minutes"]
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
    config: RunConfig, folder: Path, state: TrainState, task: Task, console: Console, *, resume_at: int
) -> str | None:
    head = task.objective.head_fraction
    flops = count_flops(task.model_config, length=task.row_length, head_fraction=head).training
    throughput = Throughput(flops_per_token=flops, device=state.model.embedding.weight.device)
    measured = _Measured(state)

    def validate() -> dict[str, float]:
        with measured as model:
            return task.measure(model)

    def save() -> None:
        _save(state, config, folder, task)

    with ProgressBar(console, title=task.title, total_steps=config.loop.steps) as progress:
        sinks: list[Sink] = [JsonlFile(folder / "metrics.jsonl", resume_at=resume_at), progress]
        if config.tensorboard:
            sinks.append(TensorBoard(folder / "tensorboard"))
        sink = Broadcast(sinks)
        try:
            return fit(
                state,
                config.loop,
                loss=task.objective,
                normaliser=task.objective.normaliser,
                schedule=config.learning_rate,
                clip_norm=config.optimizer.clip_norm,
                hooks=Hooks(validate=validate, save=save, sink=sink, progress=progress, throughput=throughput),
            )
        finally:
            sink.close()


def _save(state: TrainState, config: RunConfig, folder: Path, task: Task) -> None:
    live = {name: parameter.detach() for name, parameter in trained(state.model).items()}
    extra = {} if state.average is None else {f"{_LIVE}{name}": tensor for name, tensor in live.items()}
    root = folder / "checkpoints"
    save_checkpoint(
        checkpoint_path(root, state.step),
        model_config=task.model_config,
        weights=live if state.average is None else state.average.tensors,
        tokenizer=task.tokenizer,
        optimizer=optimizer_tensors(state.model, state.optimizer) | extra,
        state=state.plain() | {"corpus": task.data_identity},
        adapter=task.adapter,
    )
    retain(root, last=config.loop.keep_last, every=config.loop.keep_every)


class _Measured:
    """While entered, the model holds the weights that are to be measured: the average's, where there is one."""

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._live: dict[str, torch.Tensor] = {}

    def __enter__(self) -> Transformer:
        model, average = self._state.model, self._state.average
        if average is not None:
            self._live = {name: parameter.detach().clone() for name, parameter in trained(model).items()}
            copy_tensors(trained(model), average.tensors, source="the average")
        return model

    def __exit__(self, *exception: object) -> None:
        if self._live:
            copy_tensors(trained(self._state.model), self._live, source="the run")
