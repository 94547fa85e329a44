"""Supervised fine-tuning: dialogues, a style, and a run that starts from a checkpoint.

A style says how rows are made of examples and which positions the noise may mask. iLLaDA's is the same as
pre-training: windows of one continuous stream of examples, masks over everything (arXiv 2606.25331, section 2.2).
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from rich.console import Console

from illada.checkpoint.huggingface.configuration import Overrides
from illada.checkpoint.saved import stored_values
from illada.checkpoint.source import model_digest, open_start
from illada.config import fingerprint
from illada.data.dialogues import Example
from illada.data.example_rows import ExamplePacking, ExampleRows
from illada.data.instruction_corpus import InstructionConfig, InstructionCorpus, prepare_instructions
from illada.data.instructions import InstructionSet, InstructionStream
from illada.data.loader import Loader
from illada.data.packing import PackedRows, PackingConfig, RowSource
from illada.data.tokenizer import Tokenizer
from illada.distributed.mesh import Mesh
from illada.distributed.processes import joined
from illada.evaluate.response import response_bound
from illada.model.lora import LoraConfig
from illada.model.transformer import Transformer
from illada.train.adapting import build_to_train
from illada.train.objective import attention_for, build_objective, check_objective
from illada.train.run import Outcome, RunConfig, Task, check_folder, execute

Rows = Literal["stream", "examples"]


@dataclass(frozen=True, kw_only=True)
class SftConfig(RunConfig):
    """All that decides a run of fine-tuning, but for the checkpoint it starts from."""

    instructions: InstructionConfig = field(default_factory=InstructionConfig)
    rows: Rows = "stream"
    """stream: windows of the examples laid one behind the other, cut by `stream`. examples: whole ones, by
    `examples`."""
    stream: PackingConfig = field(default_factory=PackingConfig)
    examples: ExamplePacking = field(default_factory=ExamplePacking)
    epochs: float | None = None
    """Passes over the data, in place of the number of steps."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """With a rank, an adapter trains and the model that is fine-tuned stays as it is."""
    held_out_examples: int = 128
    """On which the bound of held-out responses is measured."""

    def __post_init__(self) -> None:
        """Refuse what cannot be counted."""
        if self.rows not in get_args(Rows):
            raise ValueError(f"rows must be one of {', '.join(get_args(Rows))}; got {self.rows!r}")
        if self.epochs is not None and not (math.isfinite(self.epochs) and self.epochs > 0):
            raise ValueError(f"epochs must be above 0, got {self.epochs}")
        if self.held_out_examples < 1:
            raise ValueError(f"held_out_examples must be at least 1, got {self.held_out_examples}")

    @property
    def length(self) -> int:
        """Positions of a row."""
        return self.stream.length if self.rows == "stream" else self.examples.length


def run(
    config: SftConfig,
    folder: Path,
    *,
    start: Path,
    cache: Path,
    overrides: Overrides | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> Outcome:
    """Fine-tune the model in `start`, or go on with a run that was interrupted.

    Args:
        config: the whole run; on resume it must be the one the run began with.
        folder: the run folder.
        start: what `illada.checkpoint.source.find_model` takes: a run, a checkpoint, a published folder, an id.
        cache: where encoded instructions are kept and found again.
        overrides: what to assume where a published folder is silent.
        resume: continue from the newest checkpoint in `folder`, or begin if there is none yet.
        console: where progress is shown; None: nowhere.

    Raises:
        FileExistsError: `folder` holds a run and `resume` is not set.
        FileNotFoundError: the checkpoint or a file of dialogues does not exist.
        ValueError: rows longer than the model's context, an objective that its attention does not allow, a broken line,
            no template, another run's configuration.
        OSError: the disk is full, say; the newest complete checkpoint stays.
    """
    with joined() as processes:
        console = console if console is not None and processes.first else Console(quiet=True)
        resume = resume or processes.restarted
        check_folder(folder, resume=resume)
        mesh = Mesh(config.mesh, processes=processes, device=processes.device(config.device))
        check_processes(config, processes.size)
        given = overrides or Overrides()
        config, task = processes.in_turn(
            lambda: prepare_task(config, start=start, cache=cache, overrides=given, device=mesh.device, console=console)
        )
        return execute(config, folder, task, resume=resume, console=console, mesh=mesh)


def check_processes(config: SftConfig, count: int) -> None:
    """Refuse an adapter in a job of several processes: its base is whole, and may be held in few bits.

    Raises:
        ValueError: it is one.
    """
    if config.lora.rank is not None and count > 1:
        raise ValueError(
            f"an adapter (lora.rank {config.lora.rank}) trains in one process, and this job has {count}: start it "
            "without torchrun"
        )


def prepare_task(
    config: SftConfig, *, start: Path, cache: Path, overrides: Overrides, device: torch.device, console: Console
) -> tuple[SftConfig, Task]:
    """The configuration with its number of steps, and what it trains: the model in `start`, on encoded dialogues.

    Raises:
        FileNotFoundError: the checkpoint or a file of dialogues does not exist.
        ValueError: rows longer than the model's context, an objective that its attention does not allow, a broken line,
            or no template.
    """
    saved = open_start(start, overrides, attention=attention_for(config.objective))
    check_objective(config.objective, saved.model_config.attention)
    if config.length > (limit := saved.model_config.max_length):
        raise ValueError(f"rows of {config.length} tokens exceed the model's context of {limit}: shorten the rows")

    def report(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    corpus = prepare_instructions(config.instructions, saved.tokenizer, cache, report=report)
    sources = row_sources(config, corpus, pad=saved.tokenizer.specials.pad, eos=saved.tokenizer.specials.eos)
    for (rows, _), file in zip(sources, config.instructions.files, strict=True):
        if isinstance(rows, ExampleRows) and rows.left_out:
            report(f"{file}: {rows.left_out:,} dialogues are longer than {config.length} tokens and left out")
    if config.epochs is not None:
        config = replace(config, loop=replace(config.loop, steps=steps_of(config, sources)))
    digest = model_digest(saved.folder)
    identity = [fingerprint(config.instructions), corpus.folder.name, digest]
    model, adapter = build_to_train(saved, config.lora, device=device, seed=config.seed, start=start, digest=digest)
    task = _build_task(config, model, saved.tokenizer, corpus, sources, identity)
    if adapter is None:
        return config, replace(task, values=stored_values(saved))
    return config, replace(task, adapter=adapter)


def row_sources(config: SftConfig, corpus: InstructionCorpus, *, pad: int, eos: int) -> list[tuple[RowSource, float]]:
    """The rows of each file and their share: its number of rows times its weight."""
    sources: list[tuple[RowSource, float]] = []
    for instructions, weight in corpus.train:
        rows: RowSource
        if config.rows == "stream":
            rows = PackedRows(
                InstructionStream(instructions, seed=config.seed), config.stream, seed=config.seed, pad=pad
            )
        else:
            rows = ExampleRows(instructions, config.examples, seed=config.seed, pad=pad, eos=eos)
        sources.append((rows, weight * rows.rows))
    return sources


def steps_of(config: SftConfig, sources: list[tuple[RowSource, float]]) -> int:
    """The steps in which so many epochs pass over all rows."""
    if config.epochs is None:
        return config.loop.steps
    return max(1, math.ceil(config.epochs * sum(rows.rows for rows, _ in sources) / config.loop.batch_size))


def held_out_examples(instructions: InstructionSet, count: int, *, longest: int) -> list[Example]:
    """At most `count` dialogues, spread evenly, that fit into `longest` tokens."""
    fitting = [int(pair) for pair in instructions.whole if instructions.lengths[pair] <= longest]
    chosen = fitting[:: max(1, len(fitting) // count)][:count]
    examples = []
    for pair in chosen:
        tokens, prompt = instructions.example(pair)
        examples.append(Example(prompt=tokens[:prompt].tolist(), response=tokens[prompt:].tolist()))
    return examples


def _build_task(
    config: SftConfig,
    model: Transformer,
    tokenizer: Tokenizer,
    corpus: InstructionCorpus,
    sources: list[tuple[RowSource, float]],
    identity: list[str],
) -> Task:
    mask_id = tokenizer.specials.mask
    examples = held_out_examples(corpus.held_out, config.held_out_examples, longest=config.length)
    return Task(
        title="fine-tuning",
        model=model,
        tokenizer=tokenizer,
        loader=Loader(sources, seed=config.seed),
        data_identity=identity,
        row_length=config.length,
        objective=build_objective(config.objective, config.noise, mask_id=mask_id, seed=config.seed),
        measure=lambda model: response_bound(model, examples, mask_id=mask_id).metrics(),
    )
