"""Pre-training from a complete configuration: corpus, model, objective, loop, and a run folder that holds it all.

RUN/config.json          the configuration, as it was run
RUN/metrics.jsonl        one JSON object per reading
RUN/checkpoints/step_*/  see `illada.checkpoint.native`
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from illada.checkpoint.native import (
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    load_weights,
    retain,
    save_checkpoint,
)
from illada.config import fingerprint, from_json, to_dict, to_json
from illada.data.corpus import Corpus, CorpusConfig, prepare
from illada.data.loader import Loader
from illada.data.packing import PackedRows, PackingConfig
from illada.durable import write_text
from illada.evaluate.bound import HeldOut, held_out_bound
from illada.model.accounting import count_flops
from illada.model.config import ModelConfig
from illada.model.device import choose_device
from illada.model.transformer import Transformer, initialize
from illada.track.console import ProgressBar
from illada.track.sinks import Broadcast, JsonlFile, Sink, TensorBoard
from illada.track.throughput import Throughput
from illada.train.learning_rate import LearningRate, WarmupConstantCosine
from illada.train.loop import Hooks, LoopConfig, TrainState, fit
from illada.train.objective import DiffusionObjective, NoiseConfig
from illada.train.optimizer import (
    AdamWConfig,
    WeightAverage,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
)

log = logging.getLogger(__name__)

_LIVE = "live/"
"""Prefix of the weights that train, beside the optimizer's tensors of a run whose model is the average."""


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """On how much text, and how closely, the held-out bound is measured."""

    rows: int = 64
    samples: int = 4
    """Masks per row."""

    def __post_init__(self) -> None:
        """Refuse a measurement of nothing."""
        for name in ("rows", "samples"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} of the held-out text must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """All that decides a run; recipes return one, the command line changes single fields."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Its vocab_size follows the tokenizer."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    optimizer: AdamWConfig = field(default_factory=AdamWConfig)
    learning_rate: LearningRate = field(default_factory=WarmupConstantCosine)
    loop: Annotated[LoopConfig, tyro.conf.arg(name="")] = field(default_factory=LoopConfig)
    """Its flags stand without a prefix: --steps, not --loop.steps."""
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    average_decay: float | None = None
    """Decay of a moving average of the weights; where given, the average is what is measured and saved as the model."""
    tensorboard: bool = False
    device: str = "auto"
    """auto: the first GPU, else the CPU."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse rows that the model cannot read."""
        if self.packing.length > self.model.max_length:
            raise ValueError(
                f"rows of {self.packing.length} tokens (packing.length) exceed the model's context of "
                f"{self.model.max_length} (model.max_length): shorten the one or raise the other"
            )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    folder: Path
    checkpoint: Path
    steps: int
    stopped_by: str | None
    """Why it left before its last step: a signal, or its time limit."""


def run(
    config: PretrainConfig, folder: Path, *, cache: Path, resume: bool = False, console: Console | None = None
) -> Outcome:
    """Pre-train, or go on with a run that was interrupted.

    Args:
        config: the whole run; on resume it must be the one the run began with.
        folder: the run folder.
        cache: where prepared corpora are kept and found again.
        resume: continue from the newest checkpoint in `folder`, or begin if there is none yet.
        console: where progress is shown; None: nowhere.

    Raises:
        FileExistsError: `folder` holds a run and `resume` is not set.
        ValueError: the configuration is not the run's, or the corpus or a checkpoint is not fit for use.
        OSError: the disk is full, say; the newest complete checkpoint stays.
    """
    console = console or Console(quiet=True)
    _check_folder(folder, resume=resume)
    device = choose_device(config.device)
    corpus = prepare(config.corpus, cache, report=lambda text: console.print(text, markup=False, highlight=False))
    config = replace(config, model=replace(config.model, vocab_size=corpus.tokenizer.vocab_size))
    # first what may be refused: a folder that is there holds a run that has begun
    state = _build_state(config, corpus, device)
    _check_or_write_config(config, folder, resume=resume)
    checkpoints = list_checkpoints(folder / "checkpoints")
    if checkpoints:
        restore(state, checkpoints[-1][1], corpus=corpus)
    # without a checkpoint the run begins again, and so do its metrics
    stopped_by = _train(config, folder, state, corpus, console, resume_at=state.step if checkpoints else -1)
    newest = list_checkpoints(folder / "checkpoints")[-1][1]
    return Outcome(folder=folder, checkpoint=newest, steps=state.step, stopped_by=stopped_by)


def restore(state: TrainState, checkpoint: Path, *, corpus: Corpus) -> None:
    """Put a run back to where `checkpoint` was saved.

    Raises:
        ValueError: the checkpoint is damaged, of another shape, of another tokenizer or corpus, or holds no training
            state.
    """
    saved = load_checkpoint(checkpoint, with_optimizer=True)
    if saved.tokenizer.fingerprint != corpus.tokenizer.fingerprint:
        raise ValueError(f"{checkpoint} was trained with another tokenizer than the corpus has")
    if "step" not in saved.state:
        raise ValueError(f"{checkpoint} holds weights but no training state: it can be loaded, not resumed")
    if saved.state["corpus"] != _identity(corpus):
        raise ValueError(f"{checkpoint} was trained on another corpus: the sources have changed since the run began")
    weights, average = saved.weights, {}
    if state.average is not None:
        # with an average, `weights` of the checkpoint are the averaged ones: the live ones lie with the optimizer
        average = weights
        weights = {key[len(_LIVE) :]: value for key, value in saved.optimizer.items() if key.startswith(_LIVE)}
        state.average.load(average)
    load_weights(state.model, weights, source=str(checkpoint))
    load_optimizer_tensors(state.model, state.optimizer, saved.optimizer)
    state.load_plain(saved.state)


def _identity(corpus: Corpus) -> list[str]:
    """Fingerprints of the token shards, whose manifests hold the SHA-256 of every token."""
    return [fingerprint(shards.manifest) for shards, _ in corpus.train]


def _check_folder(folder: Path, *, resume: bool) -> None:
    if not resume and (folder / "config.json").exists():
        raise FileExistsError(f"{folder} holds a run already: add --resume to go on with it, or choose another folder")


def _check_or_write_config(config: PretrainConfig, folder: Path, *, resume: bool) -> None:
    path = folder / "config.json"
    if not (resume and path.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, to_json(config))
        return
    began = from_json(PretrainConfig, path.read_text())
    # how long a session may take decides nothing about the result
    began = replace(began, loop=replace(began.loop, max_minutes=config.loop.max_minutes))
    if differing := _differences(to_dict(began), to_dict(config)):
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


def _build_state(config: PretrainConfig, corpus: Corpus, device: torch.device) -> TrainState:
    model = Transformer(config.model)
    initialize(model, seed=config.seed)
    model.to(device)
    pad = corpus.tokenizer.specials.pad
    sources = [
        (PackedRows(shards, config.packing, seed=config.seed, pad=pad), weight) for shards, weight in corpus.train
    ]
    return TrainState(
        model=model,
        optimizer=build_optimizer(model, config.optimizer),
        loader=Loader(sources, seed=config.seed),
        average=None if config.average_decay is None else WeightAverage(model, decay=config.average_decay),
    )


def _train(
    config: PretrainConfig,
    folder: Path,
    state: TrainState,
    corpus: Corpus,
    console: Console,
    *,
    resume_at: int,
) -> str | None:
    mask_id = corpus.tokenizer.specials.mask
    held_out = HeldOut.from_shards(corpus.held_out, rows=config.held_out.rows, length=config.packing.length)
    flops = count_flops(config.model, length=config.packing.length, head_fraction=0.5).training
    throughput = Throughput(flops_per_token=flops, device=state.model.embedding.weight.device)
    measured = _Measured(state)

    def validate() -> dict[str, float]:
        with measured as model:
            return held_out_bound(model, held_out, mask_id=mask_id, samples=config.held_out.samples).metrics()

    def save() -> None:
        _save(state, config, folder, corpus)

    with ProgressBar(console, title="pre-training", total_steps=config.loop.steps) as progress:
        sinks: list[Sink] = [JsonlFile(folder / "metrics.jsonl", resume_at=resume_at), progress]
        if config.tensorboard:
            sinks.append(TensorBoard(folder / "tensorboard"))
        sink = Broadcast(sinks)
        try:
            return fit(
                state,
                config.loop,
                loss=DiffusionObjective(config.noise, mask_id=mask_id, seed=config.seed),
                schedule=config.learning_rate,
                clip_norm=config.optimizer.clip_norm,
                hooks=Hooks(validate=validate, save=save, sink=sink, progress=progress, throughput=throughput),
            )
        finally:
            sink.close()


def _save(state: TrainState, config: PretrainConfig, folder: Path, corpus: Corpus) -> None:
    live = {name: parameter.detach() for name, parameter in state.model.named_parameters()}
    extra = {} if state.average is None else {f"{_LIVE}{name}": tensor for name, tensor in live.items()}
    root = folder / "checkpoints"
    save_checkpoint(
        checkpoint_path(root, state.step),
        model_config=config.model,
        weights=live if state.average is None else state.average.tensors,
        tokenizer=corpus.tokenizer,
        optimizer=optimizer_tensors(state.model, state.optimizer) | extra,
        state=state.plain() | {"corpus": _identity(corpus)},
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
            self._live = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
            load_weights(model, average.tensors, source="the average")
        return model

    def __exit__(self, *exception: object) -> None:
        if self._live:
            load_weights(self._state.model, self._live, source="the run")
