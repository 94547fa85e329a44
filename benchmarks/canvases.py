"""Variable length, plain and fast, against a fixed canvas: exact match, positions and forwards on the skills.

python benchmarks/canvases.py --model tiny-instruct --out benchmarks/results/canvases_cpu2_202611.json

The fixed canvas is filled block by block, one token per forward, and takes as many forwards as it has tokens. What it
says is certain before that: no token changes once it is there. So a row is read when its end of text has no mask in
front of it, and its cost, forwards times positions, is counted for all of them; `--verify` rows are filled to the end
to see that nothing changes.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish
from illada.assets import INSTRUCT, fast_settings
from illada.data.skills.problem import Problem
from illada.data.skills.registry import SKILLS, items, named_skill
from illada.evaluate.bootstrap import mcnemar, paired_difference
from illada.evaluate.intervals import wilson_interval
from illada.pipeline import LanguageModel, load
from illada.sample.canvas import FilledCanvas
from illada.sample.engine import Engine
from illada.sample.job import Request
from illada.sample.request import SamplingParams
from illada.sample.sampler import run
from illada.sample.stopping import Stopping
from illada.sample.writing import Prompt, writing_request

KINDS = ("fixed", "variable", "fast")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which model answers, and on which canvas."""

    model: str = "tiny-instruct"
    length: int = 256
    """Of the fixed canvas, and the budget of the variable one."""
    block_length: int = 32
    questions: int = 46
    """Of each skill."""
    skills: tuple[str, ...] = tuple(SKILLS)
    verify: int = 4
    """Rows of the fixed canvas that are filled to the end."""
    out: Path | None = None


def main() -> None:
    settings = tyro.cli(Settings)
    model = load(settings.model)
    asked = [(skill, item.problem) for skill in settings.skills for item in items(skill, "test", settings.questions)]
    records, right = {}, {}
    for kind in KINDS:
        requests = [request(model, problem, settings, kind) for _, problem in asked]
        began = time.perf_counter()
        filled = run(Engine(model.transformer, mask_id=model.tokenizer.specials.mask), requests)
        seconds = time.perf_counter() - began
        right[kind] = [check(model, skill, problem, one) for (skill, problem), one in zip(asked, filled, strict=True)]
        records[kind] = record(requests, filled, right[kind], kind, seconds=seconds)
        if kind == "fixed":
            records[kind]["verified"] = verified(model, requests[: settings.verify], filled[: settings.verify])
    for kind in KINDS[1:]:
        records[kind] |= against(right["fixed"], right[kind])
        records[kind]["times_fewer_positions"] = records["fixed"]["positions"] / records[kind]["positions"]
    table = Table("canvas", "exact match", "95 % interval", "forwards", "positions", "fewer positions", "p")
    for kind, one in records.items():
        interval = f"{one['interval']['low']:.3f} - {one['interval']['high']:.3f}"
        cells = (f"{one['exact_match']:.3f}", interval, f"{one['forwards']:.1f}", f"{one['positions']:,.0f}")
        last = ("", "") if kind == "fixed" else (f"{one['times_fewer_positions']:.1f}x", f"{one['p_value']:.2f}")
        table.add_row(kind, *cells, *last)
    print_card(f"Per answer on {len(asked)} problems", table, "p: McNemar's, against the fixed canvas")
    publish(describe_run("canvases", torch.device("cpu"), vars(settings)) | {"records": records}, settings.out)


def against(fixed: Sequence[bool], other: Sequence[bool]) -> dict[str, object]:
    """The difference to the fixed canvas on the same problems."""
    difference = paired_difference([float(value) for value in fixed], [float(value) for value in other])
    pairs = list(zip(fixed, other, strict=True))
    return {
        "minus_fixed": {"value": difference.value, "interval": vars(difference.interval)},
        "p_value": mcnemar(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)),
    }


def request(model: LanguageModel, problem: Problem, settings: Settings, kind: str) -> Request:
    params = SamplingParams(length=settings.length, block_length=settings.block_length)
    if kind == "fixed":
        params = replace(params, canvas="fixed")
    if kind == "fast":
        params = replace(params, **fast_settings(INSTRUCT))
    ids = model.chat_template.encode([{"role": "user", "content": problem.prompt}])
    stopping = Stopping(end_ids=(model.tokenizer.specials.eos,), decode=model.tokenizer.decode_bytes)
    made = writing_request(Prompt(tokens=tuple(ids)), params, config=model.transformer.config, stopping=stopping)
    return replace(made, early=True)


def check(model: LanguageModel, skill: str, problem: Problem, filled: FilledCanvas) -> bool:
    return named_skill(skill).check(problem, text(model, filled))


def text(model: LanguageModel, filled: FilledCanvas) -> str:
    holes = [token for token, at in zip(filled.tokens, filled.revealed_at, strict=True) if at]
    data = model.tokenizer.decode_bytes(holes) if filled.cut is None else filled.cut.data
    return data.decode("utf-8", errors="replace")


def record(
    requests: Sequence[Request], filled: Sequence[FilledCanvas], right: Sequence[bool], kind: str, *, seconds: float
) -> dict[str, object]:
    if kind != "fixed":
        forwards, positions = [one.forwards for one in filled], [one.positions for one in filled]
    else:
        forwards = [len(one.canvas.holes) for one in requests]
        positions = [len(one.canvas.holes) * len(one.canvas.tokens) for one in requests]
    return {
        "count": len(right),
        "correct": sum(right),
        "exact_match": sum(right) / len(right),
        "interval": vars(wilson_interval(sum(right), len(right))),
        "forwards": statistics.fmean(forwards),
        "positions": statistics.fmean(positions),
        "seconds_to_the_end_of_text": seconds / len(right),
    }


def verified(model: LanguageModel, requests: Sequence[Request], filled: Sequence[FilledCanvas]) -> int:
    """How many rows say the same when they are filled to the end."""
    whole = run(
        Engine(model.transformer, mask_id=model.tokenizer.specials.mask),
        [replace(one, early=False) for one in requests],
    )
    return sum(text(model, one) == text(model, other) for one, other in zip(whole, filled, strict=True))


if __name__ == "__main__":
    main()
