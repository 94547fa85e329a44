"""Adapters against all weights: what a model learns of a skill, and the memory that training it takes.

python benchmarks/lora.py --out benchmarks/results/lora_cpu2_202611.json

Two parts. What is learnt: the base model of the package is fine-tuned on one skill, with all weights and with adapters
beside weights in fp32, bf16, int8 and int4; exact match before and after, what changed, and how far the merged model is
from the adapted one. Exact match tells of learning above what one answer to every question gets. What it takes: the
peak of a process that has done nothing else while it trains a larger model for a few steps, over what it had before.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

import illada
from card import describe_run, in_fresh_process, peak_bytes, print_card, publish
from illada.checkpoint.export import ExportConfig, export
from illada.checkpoint.native import load_checkpoint, save_checkpoint
from illada.checkpoint.source import open_model
from illada.data.example_rows import ExamplePacking
from illada.data.instruction_corpus import InstructionConfig
from illada.data.skills.registry import items, named_skill
from illada.evaluate.skills import evaluate_skills
from illada.model.config import named_size
from illada.model.lora import LoraConfig
from illada.model.transformer import Transformer, initialize
from illada.pipeline import LanguageModel
from illada.recipes.finetuning import STYLES
from illada.sample.request import SamplingParams
from illada.train.learning_rate import StepDowns
from illada.train.loop import LoopConfig
from illada.train.sft import SftConfig, run

CPU = torch.device("cpu")
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained, on what, how long, and how closely it is measured."""

    start: str = "tiny"
    skill: str = "sudoku"
    level: int = 1
    problems: int = 20_000
    rank: int = 16
    alpha: float = 32.0
    steps: int = 400
    batch_size: int = 32
    length: int = 64
    peak_all: float = 1e-3
    """Learning rate where all weights train."""
    peak_adapter: float = 3e-3
    questions: int = 200
    size: str = "base"
    """Of the model whose memory is measured."""
    memory_steps: int = 2
    out: Path | None = None


def ways(settings: Settings) -> dict[str, LoraConfig]:
    """What trains, and how the rest is held."""
    lora = LoraConfig(rank=settings.rank, alpha=settings.alpha)
    held = {f"LoRA, {base}": replace(lora, base=base) for base in ("fp32", "bf16", "int8", "int4")}
    return {"all weights": LoraConfig(), **held}


def main() -> None:
    settings = tyro.cli(Settings)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        data = place / "skill.jsonl"
        data.write_text("".join(training_lines(settings)))
        before = exact_match(illada.load(settings.start), settings)
        learnt = {name: learn(name, lora, settings, data, place) for name, lora in ways(settings).items()}
        start = larger_model(settings, place)
        memory = {
            name: in_fresh_process(partial(memory_of, lora, settings, str(start), str(data), str(place / "m" / name)))
            for name, lora in ways(settings).items()
        }
    show(settings, before, learnt, memory)
    result = {"before": before, "constant": constant(settings), "learnt": learnt, "memory": memory}
    publish(describe_run("lora", CPU, vars(settings)) | result, settings.out)


def training_lines(settings: Settings) -> Iterator[str]:
    for item in items(settings.skill, "train", settings.problems, levels=(settings.level,)):
        yield json.dumps({"prompt": item.problem.prompt, "response": item.problem.response}) + "\n"


def configured(lora: LoraConfig, settings: Settings, data: str, steps: int, batch_size: int) -> SftConfig:
    peak = settings.peak_all if lora.rank is None else settings.peak_adapter
    config = STYLES["canvas"](
        SftConfig(
            instructions=InstructionConfig(files=(data,)),
            learning_rate=StepDowns(warmup_steps=30, levels=((0.0, peak),), final_fraction=0.3, floor=peak / 50),
            loop=LoopConfig(steps=steps, batch_size=batch_size, validate_every=0, checkpoint_every=10**6),
            held_out_examples=16,
            lora=lora,
        )
    )
    return replace(config, examples=ExamplePacking(length=settings.length, filler="canvas"))


def learn(name: str, lora: LoraConfig, settings: Settings, data: Path, place: Path) -> dict[str, Any]:
    folder = place / name.replace(", ", "-").replace(" ", "-")
    config = configured(lora, settings, str(data), settings.steps, settings.batch_size)
    start, cache = Path(settings.start), place / "cache"
    outcome = run(config, folder, start=start, cache=cache, console=Console(stderr=True))
    quantize = lora.base if lora.base in ("int8", "int4") else None
    model = illada.load(outcome.checkpoint, quantize=quantize)
    saved = load_checkpoint(outcome.checkpoint, with_optimizer=True)
    return {
        "exact_match": exact_match(model, settings),
        "trained_numbers": sum(tensor.numel() for tensor in saved.weights.values()),
        "checkpoint_bytes": sum(file.stat().st_size for file in outcome.checkpoint.iterdir()),
        "optimizer_bytes": sum(tensor.numel() * tensor.element_size() for tensor in saved.optimizer.values()),
        **({} if lora.rank is None else adapter_facts(outcome.checkpoint, settings, folder)),
    }


def adapter_facts(checkpoint: Path, settings: Settings, folder: Path) -> dict[str, Any]:
    """Whether the base is as it was, and how far the merged model is from the adapted one, in fp32."""
    before = {name: stored.read().float() for name, stored in open_model(settings.start).tensors.items()}
    adapted = illada.load(checkpoint).transformer
    after = {name.replace(".base_layer", ""): value for name, value in adapted.state_dict().items()}
    export(checkpoint, folder / "merged", ExportConfig(dtype=torch.float32))
    merged = illada.load(folder / "merged").transformer
    tokens = torch.arange(64).view(1, 64) % adapted.config.vocab_size
    with torch.inference_mode():
        difference = (adapted.logits(adapted(tokens)) - merged.logits(merged(tokens))).abs().max()
        largest = adapted.logits(adapted(tokens)).abs().max()
    return {
        "base_unchanged": all(torch.equal(after[name], value) for name, value in before.items()),
        "merged_differs_by": float(difference),
        "largest_logit": float(largest),
    }


def exact_match(model: LanguageModel, settings: Settings) -> dict[str, Any]:
    report = evaluate_skills(
        lambda prompts: model.chat([[{"role": "user", "content": text}] for text in prompts], SamplingParams()),
        (settings.skill,),
        count=settings.questions,
        levels=(settings.level,),
    )
    interval = report.overall.interval
    return {"share": report.overall.exact_match, "low": interval.low, "high": interval.high}


def constant(settings: Settings) -> float:
    """The share of right answers of who gives the most frequent one to every question."""
    asked = [item.problem for item in items(settings.skill, "test", settings.questions, levels=(settings.level,))]
    answers = {problem.response for problem in asked}
    check = named_skill(settings.skill).check
    return max(sum(check(problem, answer) for problem in asked) / len(asked) for answer in answers)


def larger_model(settings: Settings, place: Path) -> Path:
    """A checkpoint of random weights with the tokenizer of the model that is fine-tuned."""
    tokenizer = open_model(settings.start).tokenizer
    model = Transformer(named_size(settings.size))
    initialize(model, seed=0)
    weights = model.state_dict()
    save_checkpoint(place / "larger", model_config=model.config, weights=weights, tokenizer=tokenizer)
    return place / "larger"


def memory_of(lora: LoraConfig, settings: Settings, start: str, data: str, folder: str) -> dict[str, int]:
    """The peak of this process while it trains, over what it had before."""
    torch.set_num_threads(1)
    if lora.rank is not None:  # its libraries are no part of what training takes
        import peft  # noqa: F401

        from illada.model.quantized import import_torchao

        import_torchao()
    config = configured(lora, settings, data, settings.memory_steps, 4)
    measured = peak_bytes(
        lambda: run(config, Path(folder), start=Path(start), cache=Path(folder).parent.parent / "cache"), CPU
    )
    assert measured is not None, "the peak of the memory is read from /proc"
    return {"before_bytes": measured[0], "peak_bytes": measured[1], "training_bytes": measured[1] - measured[0]}


def show(settings: Settings, before: dict[str, Any], learnt: dict[str, Any], memory: dict[str, Any]) -> None:
    table = Table(
        "what trains", "numbers", "exact match", "95 % interval", "checkpoint, MB", f"training {settings.size}, MiB"
    )
    table.add_row("nothing", "0", f"{before['share']:.3f}", f"{before['low']:.3f} - {before['high']:.3f}", "", "")
    table.add_row("nothing: one answer to all", "0", f"{constant(settings):.3f}", "", "", "")
    for name, one in learnt.items():
        match = one["exact_match"]
        cells = (f"{one['trained_numbers']:,}", f"{match['share']:.3f}", f"{match['low']:.3f} - {match['high']:.3f}")
        size, peak = f"{one['checkpoint_bytes'] / 1e6:.1f}", f"{memory[name]['training_bytes'] / MIB:,.0f}"
        table.add_row(name, *cells, size, peak)
    skill = f"{settings.skill}, level {settings.level}, {settings.steps} steps"
    print_card(
        f"Fine-tuning {settings.start} on {skill}", table, f"memory: {settings.memory_steps} steps of {settings.size}"
    )


if __name__ == "__main__":
    main()
