"""Time per answer, and per token at equal length, against the published sampler and against block caches.

python benchmarks/fast_generation.py --out benchmarks/results/fast_generation_cpu2_202611.json

The published sampler is written out below as its authors describe it: the whole canvas in every forward, all logits,
one token per forward, batch 1. The contenders take turns, prompt by prompt, and ratios are taken within a turn.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish, spread
from illada.assets import fast_settings
from illada.data.skills.registry import SKILLS, items
from illada.model.transformer import Transformer
from illada.pipeline import LanguageModel, load
from illada.sample.request import SamplingParams

FAST = "illada --fast"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which model, and how much is measured."""

    model: str = "tiny-instruct"
    answers: int = 3
    """Skill problems that every contender answers, one after the other."""
    stories: int = 2
    """Texts of equal length that every contender writes."""
    lengths: tuple[int, ...] = (256, 512)
    """Of the full canvas, and of the stories."""
    parallel: int = 4
    """Reveals per forward of the fixed plan."""
    out: Path | None = None


@torch.inference_mode()
def published(
    model: Transformer, prompt: list[int], *, length: int, block_length: int, mask_id: int, barred: list[int]
) -> list[int]:
    """Low-confidence remasking on a full canvas (LLaDA, arXiv 2502.09992), one token per forward."""
    tokens = torch.tensor([[*prompt, *[mask_id] * length]])
    for start in range(len(prompt), len(prompt) + length, block_length):
        stop = min(start + block_length, len(prompt) + length)
        for _ in range(stop - start):
            logits = model.logits(model(tokens))
            logits[..., [mask_id, *barred]] = -torch.inf
            chosen = logits.argmax(-1)
            confidence = logits.softmax(-1).gather(-1, chosen[..., None]).squeeze(-1)
            confidence[tokens != mask_id] = -torch.inf
            confidence[:, stop:] = -torch.inf
            place = int(confidence.argmax())
            tokens[0, place] = chosen[0, place]
    return tokens[0, len(prompt) :].tolist()


def main() -> None:
    settings = tyro.cli(Settings)
    model = longer(load(settings.model), 2 * max(settings.lengths))
    records = {"answers": answers(model, settings), "stories": stories(model, settings)}
    for name, found in records.items():
        table = Table(name, "contender", "seconds", "forwards", "times as fast as the canvas of the same length")
        for record in found:
            ratio = record["times_as_fast"]
            shown = f"{ratio['median']:.1f} [{ratio['q1']:.1f}, {ratio['q3']:.1f}]"
            cells = (f"{record['seconds']['median']:.3f}", f"{record['forwards']:.1f}", shown)
            table.add_row(str(record["length"]), record["contender"], *cells)
        print_card(f"{name}, batch 1, {torch.get_num_threads()} threads", table)
    publish(describe_run("fast_generation", torch.device("cpu"), vars(settings)) | records, settings.out)


def longer(model: LanguageModel, context: int) -> LanguageModel:
    """The same weights with room for a full canvas behind any prompt; positions are rotary, so none is missing."""
    model.transformer.config = replace(model.transformer.config, max_length=context)
    return model


def answers(model: LanguageModel, settings: Settings) -> list[dict[str, object]]:
    """Time to the end of an answer: a canvas that grows stops there."""
    names = list(SKILLS)
    problems = [
        next(iter(items(names[number % len(names)], "test", 1, seed=1 + number))).problem
        for number in range(settings.answers)
    ]
    prompts = [model.chat_template.encode([{"role": "user", "content": one.prompt}]) for one in problems]
    records = []
    for length in settings.lengths:
        fast = SamplingParams(length=length, **fast_settings("tiny-instruct"))
        contenders = {
            "published sampler": lambda ids, length=length: canvas(model, ids, length, []),
            "dual cache, threshold 0.9": by(
                model, SamplingParams(length=length, canvas="fixed", caching="dual", unmasking="threshold,tau=0.9")
            ),
            "growing canvas": by(model, SamplingParams(length=length)),
            FAST: by(model, fast),
        }
        records += raced(contenders, prompts, length)
    return records


def stories(model: LanguageModel, settings: Settings) -> list[dict[str, object]]:
    """Time for a text of exactly so many tokens: its end is barred."""
    eos = model.tokenizer.specials.eos
    openings = ["Once upon a time", "The old king had three sons", "In a wood by the sea"][: settings.stories]
    prompts = [model.chat_template.encode([{"role": "user", "content": text}]) for text in openings]
    records = []
    for length in settings.lengths:
        plain = SamplingParams(length=length, suppress=(eos,))
        cached = replace(plain, caching=fast_settings("tiny-instruct")["caching"])
        contenders = {
            "published sampler": lambda ids, length=length: canvas(model, ids, length, [eos]),
            "prefix cache, threshold 0.9": by(
                model, replace(plain, canvas="fixed", caching="prefix", unmasking="threshold,tau=0.9")
            ),
            "dual cache, threshold 0.9": by(
                model, replace(plain, canvas="fixed", caching="dual", unmasking="threshold,tau=0.9")
            ),
            "illada, 1 token per forward": by(model, cached),
            "illada, threshold 0.9": by(model, replace(cached, unmasking="threshold,tau=0.9")),
            FAST: by(model, replace(plain, **fast_settings("tiny-instruct"))),
            f"illada, {settings.parallel} tokens per forward": by(
                model, replace(cached, steps=-(-length // settings.parallel))
            ),
        }
        records += raced(contenders, prompts, length)
    return records


def canvas(model: LanguageModel, prompt: list[int], length: int, barred: list[int]) -> int:
    """The published sampler; returns its forwards."""
    mask_id = model.tokenizer.specials.mask
    published(model.transformer, prompt, length=length, block_length=32, mask_id=mask_id, barred=barred)
    return length


def by(model: LanguageModel, params: SamplingParams) -> Callable[[list[int]], int]:
    """The engine with these settings; returns the forwards that it took."""
    return lambda ids: model.complete_ids([ids], params)[0].forwards


def raced(
    contenders: dict[str, Callable[[list[int]], int]], prompts: list[list[int]], length: int
) -> list[dict[str, object]]:
    """All contenders on every prompt in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    forwards: dict[str, list[int]] = {name: [] for name in contenders}
    list(contenders.values())[-1](prompts[0])  # what is only slow once
    for ids in prompts:
        for name, work in contenders.items():
            began = time.perf_counter()
            forwards[name].append(work(ids))
            seconds[name].append(time.perf_counter() - began)
    slowest = seconds[next(iter(contenders))]
    return [
        {
            "length": length,
            "contender": name,
            "seconds": spread(taken),
            "forwards": statistics.fmean(forwards[name]),
            "times_as_fast": spread([slow / fast for slow, fast in zip(slowest, taken, strict=True)]),
        }
        for name, taken in seconds.items()
    ]


if __name__ == "__main__":
    main()
