"""Many requests of mixed lengths and settings through the engine, against one at a time.

python benchmarks/crowd.py --out benchmarks/results/crowd_cpu2_202611.json

Every answer is compared with the one it gets alone; then the crowd comes again, and some are cancelled at random.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.table import Table

from card import describe_run, peak_bytes, print_card, publish
from illada.data.skills.registry import SKILLS, items
from illada.pipeline import LanguageModel, load
from illada.sample.engine import Engine, EngineLimits
from illada.sample.job import Request
from illada.sample.request import SamplingParams
from illada.sample.sampler import run
from illada.sample.stopping import Stopping
from illada.sample.writing import Prompt, writing_request

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which model, how many come, and what they may take."""

    model: str = "tiny-instruct"
    requests: int = 200
    cancelled: int = 20
    rows: int = 64
    cache_mib: int = 256
    """For keys and values."""
    seed: int = 0
    out: Path | None = None


def main() -> None:
    settings = tyro.cli(Settings)
    model = load(settings.model)
    requests = crowd(model, settings)
    limits = EngineLimits(rows=settings.rows, cache_bytes=settings.cache_mib * MIB)
    mask_id = model.tokenizer.specials.mask

    def together():
        return run(Engine(model.transformer, mask_id=mask_id, limits=limits), requests)

    def alone():
        return [run(Engine(model.transformer, mask_id=mask_id, limits=limits), [one])[0] for one in requests]

    run(Engine(model.transformer, mask_id=mask_id), requests[:2])
    answers: list[object] = []
    memory = peak_bytes(lambda: answers.extend(together()), torch.device("cpu"))
    seconds = {}
    for name, work in (("together", together), ("alone", alone)):
        began = time.perf_counter()
        found = work()
        seconds[name] = time.perf_counter() - began
        equal = sum(one == other for one, other in zip(found, answers, strict=True))
        assert name == "alone" or equal == len(requests), "the same crowd twice gives the same answers"
    untouched = cancelled(model, requests, answers, limits, settings)
    result = {
        "seconds": seconds,
        "times_as_fast": seconds["alone"] / seconds["together"],
        "equal_to_solo": equal,
        "peak_mib_above_start": None if memory is None else (memory[1] - memory[0]) / MIB,
        "cache_budget_mib": settings.cache_mib,
        "untouched_by_cancelling": untouched,
    }
    table = Table("requests", "together", "alone", "times as fast", "equal to solo", "peak MiB", "untouched")
    peak = "" if result["peak_mib_above_start"] is None else f"{result['peak_mib_above_start']:.0f}"
    table.add_row(
        str(len(requests)),
        f"{seconds['together']:.1f} s",
        f"{seconds['alone']:.1f} s",
        f"{result['times_as_fast']:.2f}",
        f"{equal} of {len(requests)}",
        peak,
        f"{untouched} of {len(requests) - settings.cancelled}",
    )
    print_card("A crowd through the engine", table)
    publish(describe_run("crowd", torch.device("cpu"), vars(settings)) | result, settings.out)


def crowd(model: LanguageModel, settings: Settings) -> list[Request]:
    """Skill problems, with settings drawn for each."""
    draw, requests = random.Random(settings.seed), []
    names, eos = list(SKILLS), model.tokenizer.specials.eos
    for number in range(settings.requests):
        problem = next(iter(items(draw.choice(names), "test", 1, seed=1000 + number))).problem
        ids = model.chat_template.encode([{"role": "user", "content": problem.prompt}])
        params = SamplingParams(
            length=draw.choice([32, 64, 128]),
            block_length=draw.choice([16, 32]),
            temperature=draw.choice([0.0, 0.0, 0.7]),
            unmasking=draw.choice(["low_confidence", "threshold,tau=0.9", "random"]),
            caching=draw.choice(["delayed,refresh=0", "delayed,refresh=0", "block_reuse", "dual"]),
            suppress=draw.choice([(), (), (eos,)]),
        )
        stopping = Stopping(end_ids=(eos,), decode=model.tokenizer.decode_bytes)
        prompt = Prompt(tokens=tuple(ids), seed=number)
        requests.append(writing_request(prompt, params, config=model.transformer.config, stopping=stopping))
    return requests


def cancelled(
    model: LanguageModel, requests: list[Request], answers: list[object], limits: EngineLimits, settings: Settings
) -> int:
    """How many of those that are not cancelled get the answer that they got before."""
    draw, engine = (
        random.Random(settings.seed + 1),
        Engine(model.transformer, mask_id=model.tokenizer.specials.mask, limits=limits),
    )
    numbers = [engine.submit(request) for request in requests]
    gone: set[int] = set()
    results: dict[int, object] = {}
    while engine.busy:
        results |= engine.step()
        candidates = [number for number in numbers if number not in gone and number not in results]
        if len(gone) < settings.cancelled and candidates:
            number = draw.choice(candidates)
            assert engine.cancel(number)
            gone.add(number)
    assert len(gone) == settings.cancelled
    return sum(results[number] == answer for number, answer in zip(numbers, answers, strict=True) if number not in gone)


if __name__ == "__main__":
    main()
