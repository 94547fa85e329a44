"""A diffusion model against its autoregressive twin, both in the same engine, on answers to the skills.

python benchmarks/twin.py --twin runs/twin-instruct --out benchmarks/results/twin_cpu2_202611.json

The twin keeps keys and values, which is exact, and writes one token per forward. The two take turns, question by
question and batch by batch. Exact match is of the same questions.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish, spread
from illada.assets import INSTRUCT, fast_settings
from illada.data.skills.problem import Problem
from illada.data.skills.registry import items, named_skill
from illada.evaluate.intervals import wilson_interval
from illada.pipeline import LanguageModel, load
from illada.sample.request import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Who is compared, and on what."""

    twin: Path
    model: str = INSTRUCT
    skills: tuple[str, ...] = ("repeat", "reverse", "sudoku")
    levels: tuple[int, ...] = (1, 2, 3)
    questions: int = 96
    """Of each skill, in batches."""
    single: int = 20
    """Of each skill, one at a time."""
    batch: int = 32
    note: str = ""
    """What a reader has to know of how the two were trained."""
    out: Path | None = None


def main() -> None:
    settings = tyro.cli(Settings)
    models = {"diffusion": load(settings.model), "autoregressive": load(settings.twin)}
    params = {
        "diffusion": SamplingParams(length=64, **fast_settings(INSTRUCT)),
        "autoregressive": SamplingParams(length=64),
    }
    records = {}
    for skill in settings.skills:
        problems = [item.problem for item in items(skill, "test", settings.questions, seed=7, levels=settings.levels)]
        right, batched = raced(models, params, problems, skill, size=settings.batch)
        _, single = raced(models, params, problems[: settings.single], skill, size=1)
        records[skill] = {
            name: {
                "correct": right[name],
                "count": len(problems),
                "interval": vars(wilson_interval(right[name], len(problems))),
                "seconds_single": spread(single[name]),
                "seconds_batched": spread(batched[name]),
            }
            for name in models
        } | {
            "times_as_fast_single": spread(ratios(single)),
            "times_as_fast_batched": spread(ratios(batched)),
        }
    table = Table("skill", "diffusion", "autoregressive", "batch 1: times as fast", f"batch {settings.batch}")
    for skill, record in records.items():
        shares = [f"{record[name]['correct'] / record[name]['count']:.1%}" for name in models]
        speeds = [
            f"{record[key]['median']:.2f} [{record[key]['q1']:.2f}, {record[key]['q3']:.2f}]"
            for key in ("times_as_fast_single", "times_as_fast_batched")
        ]
        table.add_row(skill, *shares, *speeds)
    print_card("The twins on skills: exact match, and diffusion over autoregressive", table)
    publish(describe_run("twin", torch.device("cpu"), vars(settings)) | {"records": records}, settings.out)


def raced(
    models: dict[str, LanguageModel],
    params: dict[str, SamplingParams],
    problems: list[Problem],
    skill: str,
    *,
    size: int,
) -> tuple[dict[str, int], dict[str, list[float]]]:
    """(right answers, seconds of each batch) of each model, in turns."""
    right, seconds = dict.fromkeys(models, 0), {name: [] for name in models}
    check = named_skill(skill).check
    for start in range(0, len(problems), size):
        part = problems[start : start + size]
        asked = [[{"role": "user", "content": problem.prompt}] for problem in part]
        for name, model in models.items():
            began = time.perf_counter()
            found = model.chat(asked, params[name])
            seconds[name].append(time.perf_counter() - began)
            right[name] += sum(check(problem, one.text) for problem, one in zip(part, found, strict=True))
    return right, seconds


def ratios(seconds: dict[str, list[float]]) -> list[float]:
    return [slow / fast for slow, fast in zip(seconds["autoregressive"], seconds["diffusion"], strict=True)]


if __name__ == "__main__":
    main()
