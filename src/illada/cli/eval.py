"""`illada eval --tasks skills`: ask a model what has an exact answer, and count."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import tyro
from rich.console import Console
from rich.table import Table

from illada._version import __version__
from illada.assets import INSTRUCT
from illada.cli.flags import parse
from illada.data.skills.problem import LEVELS
from illada.data.skills.registry import SKILLS, named_skills
from illada.durable import write_text
from illada.evaluate.skills import Score, SkillReport, evaluate_skills
from illada.pipeline import load
from illada.sample.request import Completion, SamplingParams
from illada.track.console import ProgressBar

TASKS = ("skills",)
"""What there is to measure."""

RESULTS, ANSWERS = "results.json", "answers.jsonl"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Ask a model problems whose answers can be checked: so far the skills of `illada skills`, split test."""

    model: str = INSTRUCT
    """A run folder, a checkpoint folder, or the name of a model that comes with the package."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = TASKS
    """What to measure."""
    limit: int = 200
    """Problems of each skill."""
    skills: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = tuple(SKILLS)
    """Which skills; all by default."""
    levels: tuple[int, ...] = LEVELS
    """1 is easy, 3 is hard."""
    out: Path | None = None
    """A folder for results.json and answers.jsonl: every prompt and reply, right or wrong."""
    overwrite: bool = False
    """Replace the results in that folder if there are some."""
    params: Annotated[SamplingParams, tyro.conf.arg(name="")] = field(default_factory=SamplingParams)
    device: str = "auto"
    json: bool = False
    """Print one JSON object in place of the table: what results.json holds."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked, before a model is loaded."""
        if not self.tasks:
            raise ValueError(f"name at least 1 task; there are: {', '.join(TASKS)}")
        if unknown := [name for joined in self.tasks for name in joined.split(",") if name not in TASKS]:
            raise ValueError(f"no task is called {unknown[0]!r}; there are: {', '.join(TASKS)}")
        if self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        named_skills(self.skills)


@runtime_checkable
class Chats(Protocol):
    """What answers conversations, `illada.pipeline.LanguageModel` say."""

    def chat(self, conversations: list[list[dict[str, str]]], params: SamplingParams) -> list[Completion]:
        """One answer to each."""
        ...


def command(arguments: list[str]) -> int:
    """Load, ask, count, print."""
    chosen = parse(Arguments, arguments, command="eval")
    _refuse_to_overwrite(chosen)
    report = _measured(load(chosen.model, device=chosen.device), chosen)
    results = _results(chosen, report)
    if chosen.out is not None:
        _write(chosen.out, results, report)
    if chosen.json:
        print(json.dumps(results))  # noqa: T201  # for programs: no wrapping, no colours
    else:
        Console().print(table(report))
    return 0


def ask(model: Chats, prompts: Sequence[str], params: SamplingParams) -> list[Completion]:
    """Every prompt as the only turn of a conversation."""
    return model.chat([[{"role": "user", "content": prompt}] for prompt in prompts], params)


def table(report: SkillReport) -> Table:
    """A line for each skill, and one for all."""
    shown = Table(title="exact answers in %", title_justify="left", box=None, pad_edge=False)
    shown.add_column("skill", no_wrap=True)
    levels = (f"level {level}" for level in LEVELS)
    for name in ("n", "exact", "95 % interval", *levels, "forwards"):
        shown.add_column(name, justify="right", no_wrap=True)
    for name, score in report.skills.items():
        shown.add_row(name, *_cells(score, [report.levels[name].get(level) for level in LEVELS]))
    shown.add_row("all", *_cells(report.overall, [None] * len(LEVELS)))
    return shown


def _measured(model: Chats, chosen: Arguments) -> SkillReport:
    total = chosen.limit * len(named_skills(chosen.skills))
    with ProgressBar(Console(stderr=True), title="skills", total_steps=total) as bar:
        return evaluate_skills(
            lambda prompts: ask(model, prompts, chosen.params),
            chosen.skills,
            count=chosen.limit,
            levels=chosen.levels,
            on_progress=lambda done: bar.log(done, {}),
        )


def _results(chosen: Arguments, report: SkillReport) -> dict[str, Any]:
    """The scores, and all that they depend on."""
    return {
        "task": "skills",
        "model": chosen.model,
        "illada": __version__,
        "limit": chosen.limit,
        "levels": list(chosen.levels),
        "params": asdict(chosen.params),
        **report.summary(),
    }


def _refuse_to_overwrite(chosen: Arguments) -> None:
    if chosen.out is None or chosen.overwrite:
        return
    for name in (RESULTS, ANSWERS):
        if (chosen.out / name).exists():
            raise FileExistsError(f"{chosen.out / name} is there already: add --overwrite, or choose another folder")


def _write(folder: Path, results: dict[str, Any], report: SkillReport) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / ANSWERS, "".join(json.dumps(answer.row()) + "\n" for answer in report.answers))
    # the last to appear: where it is, all is there
    write_text(folder / RESULTS, json.dumps(results, indent=2) + "\n")


def _cells(score: Score, levels: Sequence[Score | None]) -> list[str]:
    interval = f"{100 * score.interval.low:.1f} to {100 * score.interval.high:.1f}"
    parts = ["" if part is None else _percent(part) for part in levels]
    forwards = "" if score.forwards is None else f"{score.forwards:.1f}"
    return [str(score.count), _percent(score), interval, *parts, forwards]


def _percent(score: Score) -> str:
    return f"{100 * score.exact_match:.1f}"
