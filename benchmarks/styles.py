"""The styles of fine-tuning on the skills, for equal tokens: exact match, and forwards per answer.

python benchmarks/styles.py --start tiny --out benchmarks/results/styles_cpu2_202611.json
"""

import json
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from card import describe_run, print_card, publish
from illada.checkpoint.native import find_checkpoint, load_checkpoint
from illada.data.instruction_corpus import InstructionConfig, prepare_instructions
from illada.data.loader import Loader
from illada.data.packing import PackingConfig
from illada.data.skills.registry import items
from illada.evaluate.skills import evaluate_skills
from illada.pipeline import load
from illada.recipes.finetuning import STYLES
from illada.sample.request import SamplingParams
from illada.train.learning_rate import StepDowns
from illada.train.loop import LoopConfig
from illada.train.sft import SftConfig, row_sources, run


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained on, how long, and how closely it is measured."""

    start: Path = Path("tiny")
    styles: tuple[str, ...] = tuple(STYLES)
    skills: tuple[str, ...] = ("repeat", "compare", "sudoku")
    levels: tuple[int, ...] = (1,)
    problems: int = 30_000
    """Of each skill, to train on."""
    tokens: int = 2_000_000
    """That each style trains on, padding apart."""
    tokens_per_step: int = 2048
    length: int = 256
    peak: float = 1e-3
    questions: int = 200
    """Of each skill, asked afterwards."""
    out: Path | None = None


def main() -> None:
    settings = tyro.cli(Settings)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "skills.jsonl"
        data.write_text("".join(training_lines(settings)))
        records = [measure(name, settings, data, Path(scratch)) for name in settings.styles]
    table = Table("style", "tokens", "steps", "exact match", "95 % interval", *settings.skills, "forwards per answer")
    for record in records:
        overall = record["scores"]["overall"]
        interval = f"{overall['interval']['low']:.3f} - {overall['interval']['high']:.3f}"
        parts = [f"{record['scores']['skills'][name]['exact_match']:.3f}" for name in settings.skills]
        cells = (f"{record['tokens']:,}", f"{record['steps']:,}", f"{overall['exact_match']:.3f}", interval)
        table.add_row(record["style"], *cells, *parts, f"{overall['forwards']:.1f}")
    print_card("Styles of fine-tuning on the skills, equal tokens", table)
    publish(describe_run("styles", torch.device("cpu"), vars(settings)) | {"records": records}, settings.out)


def training_lines(settings: Settings):
    for name in settings.skills:
        for item in items(name, "train", settings.problems, levels=settings.levels):
            yield json.dumps({"prompt": item.problem.prompt, "response": item.problem.response}) + "\n"


def measure(name: str, settings: Settings, data: Path, scratch: Path) -> dict[str, object]:
    config, batch_size, steps = configured(name, settings, data, scratch)
    config = replace(config, loop=replace(config.loop, steps=steps, batch_size=batch_size))
    folder = scratch / name
    outcome = run(config, folder, start=settings.start, cache=scratch / "cache", console=Console(stderr=True))
    tokens = load_checkpoint(outcome.checkpoint).state["tokens"]
    model = load(outcome.checkpoint)
    report = evaluate_skills(
        lambda prompts: model.chat([[{"role": "user", "content": text}] for text in prompts], SamplingParams()),
        settings.skills,
        count=settings.questions,
        levels=settings.levels,
    )
    return {"style": name, "steps": steps, "batch_size": batch_size, "tokens": tokens, "scores": report.summary()}


def configured(name: str, settings: Settings, data: Path, scratch: Path) -> tuple[SftConfig, int, int]:
    """The run's configuration, and the batch size and steps that make its tokens those of every style."""
    config = STYLES[name](
        SftConfig(
            instructions=InstructionConfig(files=(str(data),)),
            stream=PackingConfig(length=settings.length),
            learning_rate=StepDowns(
                warmup_steps=50, levels=((0.0, settings.peak),), final_fraction=0.3, floor=settings.peak / 50
            ),
            loop=LoopConfig(validate_every=0, checkpoint_every=10**6),
        )
    )
    tokenizer = load_checkpoint(find_checkpoint(settings.start)).tokenizer
    corpus = prepare_instructions(config.instructions, tokenizer, scratch / "cache")
    loader = Loader(row_sources(config, corpus, pad=tokenizer.specials.pad, eos=tokenizer.specials.eos), seed=0)
    # rows of some styles are short, and as long as the longest of the batch: ask for batches of the size in question
    batch_size = max(1, round(settings.tokens_per_step / (loader.next(256).token_count / 256)))
    mean = sum(loader.next(batch_size).token_count for _ in range(50)) / 50
    return config, batch_size, math.ceil(settings.tokens / mean)


if __name__ == "__main__":
    main()
