"""`illada bench generate`: quality against speed of the settings of generation, on one model."""

import json
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

from illada._version import __version__
from illada.assets import INSTRUCT
from illada.cli.flags import parse
from illada.cli.loading import Loading
from illada.data.skills.registry import SKILLS, named_skills
from illada.durable import write_text
from illada.evaluate.fitting import Room
from illada.evaluate.frontier import BLOCKS, CACHING, UNMASKING, Point, area, best, frontier, grid, measure
from illada.evaluate.frontier_plot import frontier_svg
from illada.evaluate.run import Prepared, prepare
from illada.evaluate.suites import Asking
from illada.evaluate.tasks.registry import named_task
from illada.evaluate.tasks.skills import skill_tasks
from illada.model.device import choose_device
from illada.track.console import ProgressBar

RESULTS, PLOT = "frontier.json", "frontier.svg"
SKILLS_NAME = "skills"
_WIDTH = 120
"""Columns where no terminal tells its width."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Ask the same questions with every combination of caching, unmasking and block length."""

    model: str = INSTRUCT
    """A run, a checkpoint, tiny or tiny-instruct, a published folder, or an id on the hub."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = (SKILLS_NAME,)
    """What to ask: skills, or benchmarks with written answers, by name."""
    skills: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = tuple(SKILLS)
    """Which skills."""
    data: Path | None = None
    """A folder with the files of the benchmarks."""
    limit: int = 50
    """Questions of each task and skill."""
    caching: Annotated[tuple[str, ...], tyro.conf.arg(metavar="POLICY")] = CACHING
    unmasking: Annotated[tuple[str, ...], tyro.conf.arg(metavar="POLICY")] = UNMASKING
    block_lengths: tuple[int, ...] = BLOCKS
    length: int = 128
    """The longest answer, in tokens."""
    batch_size: int = 64
    """Questions that are asked together."""
    out: Path = Path("runs/bench-generate")
    """A folder for frontier.json and frontier.svg."""
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)

    def __post_init__(self) -> None:
        """Refuse what cannot be asked, before a model is loaded."""
        for name in ("limit", "length", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in self.task_names:
            if name != SKILLS_NAME and named_task(name).kind != "text":
                raise ValueError(f"{name} has no written answers: quality against speed is about writing")
        named_skills(self.skills)
        grid(self.caching, self.unmasking, self.block_lengths, length=self.length)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Commas part names, too."""
        return tuple(name for joined in self.tasks for name in joined.split(","))

    @property
    def asked(self) -> list[str]:
        """The tasks as a reader is told of them: skills by name, unless they are all."""
        skills = [SKILLS_NAME] if self.skills == tuple(SKILLS) else list(self.skills)
        return [told for name in self.task_names for told in (skills if name == SKILLS_NAME else [name])]


def command(arguments: list[str]) -> int:
    """Measure, print, and write the folder."""
    measured, flags = arguments[:1], arguments[1:]
    if {"-h", "--help"} & set(measured):
        measured, flags = ["generate"], arguments
    if measured != ["generate"]:
        raise ValueError("name what to measure: illada bench generate; --help behind it lists the flags")
    chosen = parse(Arguments, flags, command="bench generate")
    tasks = [task for name in chosen.task_names for task in _prepared(name, chosen)]
    settings = grid(chosen.caching, chosen.unmasking, chosen.block_lengths, length=chosen.length)
    model = chosen.loading.load(chosen.model)
    tokenizer = model.tokenizer
    room = Room(context=model.transformer.config.max_length, encode=tokenizer.encode, decode=tokenizer.decode)
    with ProgressBar(Console(stderr=True), title="settings", total_steps=len(settings)) as bar:
        points = measure(
            model,
            tasks,
            settings,
            room=room,
            batch_size=chosen.batch_size,
            on_progress=lambda done: bar.log(done, {}),
        )
    _write(chosen, points, arguments)
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    console.print(_table(points))
    console.print(f"area under exact match over tokens per forward: {area(points):.2f}", highlight=False)
    console.print(f"cheapest that loses nothing: {_name(best(points))}", highlight=False, markup=False)
    return 0


def _prepared(name: str, chosen: Arguments) -> list[Prepared]:
    if name != SKILLS_NAME:
        return [prepare(named_task(name), Asking(task=name, chat=True), data=chosen.data, limit=chosen.limit)]
    tasks = skill_tasks(named_skills(chosen.skills), count=chosen.limit)
    return [prepare(task, Asking(task=task.name, chat=True), data=None, limit=chosen.limit) for task in tasks]


def _write(chosen: Arguments, points: Sequence[Point], arguments: Sequence[str]) -> None:
    chosen.out.mkdir(parents=True, exist_ok=True)
    fastest = best(points)
    result = {
        "subject": "frontier",
        "illada": __version__,
        "device": _device_name(choose_device(chosen.loading.device)),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "command": shlex.join(["illada", "bench", *arguments]),
        "model": chosen.model,
        "tasks": chosen.asked,
        "limit": chosen.limit,
        "area": area(points),
        "best": {name: getattr(fastest, name) for name in ("caching", "unmasking", "block_length")},
        "points": [point.data() for point in points],
    }
    write_text(chosen.out / RESULTS, json.dumps(result, indent=2) + "\n")
    title = f"{Path(chosen.model).name}: {', '.join(chosen.asked)}, {points[0].right.count} questions"
    write_text(chosen.out / PLOT, frontier_svg(points, title=title))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def _table(points: Sequence[Point]) -> Table:
    """All settings, the best of each number of tokens per forward marked."""
    ahead = {id(point) for point in frontier(points)}
    shown = Table(title="quality against speed", title_justify="left", box=None, pad_edge=False)
    for name in ("caching", "unmasking"):
        shown.add_column(name, no_wrap=True)
    for name in ("block", "exact %", "95 % interval", "vs first", "tok/forward", "forwards", "tok/s", ""):
        shown.add_column(name, justify="right", no_wrap=True)
    for point in points:
        interval = point.right.interval
        marks = ("=" if point.loses_nothing else "") + ("*" if id(point) in ahead else "")
        shown.add_row(
            point.caching,
            point.unmasking,
            str(point.block_length),
            f"{100 * point.right.share:.1f}",
            f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
            f"{100 * point.difference.value:+.1f}",
            f"{point.tokens_per_forward:.2f}",
            f"{point.forwards:.1f}",
            f"{point.tokens_per_second:.0f}",
            marks,
        )
    shown.caption = "= loses nothing against the first, in any task; * no setting is better in both"
    return shown


def _name(point: Point) -> str:
    return f"--caching {point.caching} --unmasking {point.unmasking} --block-length {point.block_length}"
