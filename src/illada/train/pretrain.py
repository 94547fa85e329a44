"""Pre-training from a complete configuration: corpus, model, objective, and a run of them."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from illada.checkpoint.saved import SavedModel, stored_values
from illada.checkpoint.source import model_digest
from illada.data.corpus import Corpus, CorpusConfig, prepare
from illada.data.loader import Loader
from illada.data.packing import PackedRows, PackingConfig
from illada.data.storage import is_url
from illada.distributed.mesh import Mesh
from illada.distributed.processes import joined
from illada.durable import atomic_folder
from illada.evaluate.bound import HeldOut, held_out_bound
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initial_values
from illada.train.objective import build_objective, check_objective
from illada.train.run import Outcome, RunConfig, Task, check_folder, execute

_REQUESTS_AT_ONCE = 16


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
class PretrainConfig(RunConfig):
    """All that decides a run; recipes return one, the command line changes single fields."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Its vocab_size follows the tokenizer, or all of it the model that a run starts from."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)

    def __post_init__(self) -> None:
        """Refuse rows that the model cannot read, and an objective that it cannot have."""
        check_objective(self.objective, self.model.attention)
        if self.packing.length > self.model.max_length:
            raise ValueError(
                f"rows of {self.packing.length} tokens (packing.length) exceed the model's context of "
                f"{self.model.max_length} (model.max_length): shorten the one or raise the other"
            )


def run(
    config: PretrainConfig,
    folder: Path,
    *,
    cache: Path,
    start: SavedModel | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> Outcome:
    """Pre-train, or go on with a run that was interrupted.

    Args:
        config: the whole run; on resume it must be the one the run began with.
        folder: the run folder.
        cache: where prepared corpora are kept and found again.
        start: the model whose pre-training is continued, its shape and tokenizer in place of those of `config`; a
            causal one that was opened with attention bidirectional becomes a diffusion model. None: a new model.
        resume: continue from the newest checkpoint in `folder`, or begin if there is none yet.
        console: where progress is shown; None: nowhere.

    Raises:
        FileExistsError: `folder` holds a run and `resume` is not set.
        ValueError: the configuration is not the run's, or the corpus or a checkpoint is not fit for use.
        OSError: the disk is full, say; the newest complete checkpoint stays.
    """
    with joined() as processes:
        console = console if console is not None and processes.first else Console(quiet=True)
        resume = resume or processes.restarted
        check_folder(folder, resume=resume)
        mesh = Mesh(config.mesh, processes=processes, device=processes.device(config.device))

        def report(text: str) -> None:
            console.print(text, markup=False, highlight=False)

        if start is not None:
            config = processes.in_turn(lambda: continued(config, start, cache))
        corpus = processes.in_turn(lambda: prepare(config.corpus, cache, report=report))
        if start is None:
            config = replace(config, model=replace(config.model, vocab_size=corpus.tokenizer.vocab_size))
        # first what may be refused: a folder that is there holds a run that has begun
        task = build_task(config, corpus, start, mesh=mesh)
        return execute(config, folder, task, resume=resume, console=console, mesh=mesh)


def continued(config: PretrainConfig, start: SavedModel, cache: Path) -> PretrainConfig:
    """The configuration with the shape and the tokenizer of the model that is started from.

    Raises:
        ValueError: its rows are longer than the model's context, or it names another tokenizer.
    """
    if config.corpus.tokenizer is not None:
        raise ValueError(
            f"the tokenizer is that of {start.folder}, which the run starts from: leave corpus.tokenizer out, "
            f"got {config.corpus.tokenizer}"
        )
    kept = start.tokenizer
    content = "\0".join((kept.fingerprint, kept.chat_template or "", *kept.end_texts))
    tokenizer = cache / "tokenizers" / hashlib.sha256(content.encode()).hexdigest()[:12]
    if not tokenizer.exists():  # the corpus is prepared anew when its files change
        with atomic_folder(tokenizer) as partial:
            kept.save(partial)
    return replace(config, model=start.model_config, corpus=replace(config.corpus, tokenizer=str(tokenizer)))


def build_task(
    config: PretrainConfig, corpus: Corpus, start: SavedModel | None = None, *, mesh: Mesh | None = None
) -> Task:
    """A new model or that of `start`, the rows of the corpus, the objective and the held-out bound."""
    with torch.device("meta"):
        model = Transformer(config.model)
    identity = [shards.identity for shards, _ in corpus.train]
    pad, mask_id = corpus.tokenizer.specials.pad, corpus.tokenizer.specials.mask
    sources = [
        (PackedRows(shards, config.packing, seed=config.seed, pad=pad), weight) for shards, weight in corpus.train
    ]
    held_out = HeldOut.from_shards(corpus.held_out, rows=config.held_out.rows, length=config.packing.length)
    return Task(
        title="pre-training",
        model=model,
        values=partial(initial_values, config.model, seed=config.seed) if start is None else stored_values(start),
        tokenizer=corpus.tokenizer,
        loader=Loader(sources, seed=config.seed, readers=_readers(corpus)),
        data_identity=identity if start is None else [*identity, model_digest(start.folder)],
        row_length=config.packing.length,
        objective=build_objective(config.objective, config.noise, mask_id=mask_id, seed=config.seed),
        measure=lambda model: held_out_bound(
            model, held_out, mask_id=mask_id, samples=config.held_out.samples, mesh=mesh
        ).metrics(),
    )


def _readers(corpus: Corpus) -> int:
    """One row at a time from a disk; from an object store several, since each waits for its answer."""
    return _REQUESTS_AT_ONCE if any(is_url(shards.location) for shards, _ in corpus.train) else 1
