"""Variable length against a fixed canvas, same checkpoint, on the skills: exact match, positions, forwards, time.

python benchmarks/canvases.py --model tiny-instruct --out benchmarks/results/canvases_cpu2_202611.json
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish
from illada.data.skills.registry import SKILLS
from illada.evaluate.skills import SkillReport, evaluate_skills
from illada.pipeline import LanguageModel, load
from illada.sample.request import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which model answers, and on which canvas."""

    model: str = "tiny-instruct"
    length: int = 256
    """Of the fixed canvas, and the budget of the variable one."""
    block_length: int = 32
    questions: int = 200
    """Of each skill."""
    skills: tuple[str, ...] = tuple(SKILLS)
    out: Path | None = None


def main() -> None:
    settings = tyro.cli(Settings)
    model = load(settings.model)
    reports = {kind: measure(model, settings, kind) for kind in ("variable", "fixed")}
    table = Table("canvas", "exact match", "95 % interval", "forwards", "positions", "seconds", "positions of fixed")
    baseline = reports["fixed"].overall.positions or 0
    for kind, report in reports.items():
        score = report.overall
        positions = score.positions or 1
        interval = f"{score.interval.low:.3f} - {score.interval.high:.3f}"
        cells = (f"{score.exact_match:.3f}", interval, f"{score.forwards:.1f}", f"{positions:,.0f}")
        table.add_row(kind, *cells, f"{score.seconds:.4f}", f"1 / {baseline / positions:.1f}")
    print_card(f"Per answer on the skills, {settings.questions} questions each", table)
    records = {kind: report.summary() for kind, report in reports.items()}
    ratio = baseline / (reports["variable"].overall.positions or 1)
    head = describe_run("canvases", torch.device("cpu"), vars(settings))
    publish(head | {"times_fewer_positions": ratio, "records": records}, settings.out)


def measure(model: LanguageModel, settings: Settings, kind: str) -> SkillReport:
    params = SamplingParams(canvas=kind, length=settings.length, block_length=settings.block_length)
    return evaluate_skills(
        lambda prompts: model.chat([[{"role": "user", "content": text}] for text in prompts], params),
        settings.skills,
        count=settings.questions,
    )


if __name__ == "__main__":
    main()
