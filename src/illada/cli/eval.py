"""`illada eval`: ask a model tasks whose answers can be checked, and count."""

import json
import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from illada._version import __version__
from illada.assets import INSTRUCT
from illada.checkpoint.source import find_model, model_digest
from illada.cli import scores
from illada.cli.flags import parse
from illada.cli.loading import Loading
from illada.config import to_dict
from illada.data.hub import hub_rows
from illada.data.skills.problem import LEVELS
from illada.data.skills.registry import SKILLS, named_skills
from illada.evaluate.comparison import compare_folders
from illada.evaluate.evaluation import Evaluated, evaluate, questions_digest
from illada.evaluate.fitting import Room
from illada.evaluate.folder import ANSWERS, REPORT, RESULTS, SETTINGS
from illada.evaluate.run import Prepared, check_code, prepare
from illada.evaluate.sandbox import Limits
from illada.evaluate.scoring import Normalisation, ScoringParams
from illada.evaluate.suites import SUITES, Asking
from illada.evaluate.task import Task
from illada.evaluate.tasks.registry import TASKS, named_task
from illada.evaluate.tasks.skills import COUNT, skill_choices, skill_tasks
from illada.pipeline import LanguageModel
from illada.sample.request import SamplingParams
from illada.track.console import ProgressBar

SKILL_KINDS: dict[str, Callable[..., Sequence[Task]]] = {"skills": skill_tasks, "skills_choice": skill_choices}
"""Names that stand for every skill: what makes their tasks."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Ask a model problems whose answers can be checked: skills, benchmarks, or the tables of a paper."""

    model: str = INSTRUCT
    """A run, a checkpoint, tiny or tiny-instruct, a published folder, or an id on the hub."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """What to ask: skills (the default), skills_choice, or benchmarks by name."""
    suite: str | None = None
    """In place of tasks: all that a paper reports, with its settings; illada_base, illada_instruct, llada_base or
    llada_instruct."""
    data: Path | None = None
    """A folder with the files of the benchmarks; without it they come from the hub."""
    limit: int | None = None
    """Questions of each task; by default all, and 200 of each skill."""
    shots: int | None = None
    """Solved examples in front of each question; by default as many as is usual for the task."""
    chat: bool = False
    """Ask in turns of the chat template; skills always are."""
    allow_code: bool = False
    """Run programs that the model writes, each in a sandbox; tasks of code need it."""
    skills: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = tuple(SKILLS)
    """Which skills; all by default."""
    levels: tuple[int, ...] = LEVELS
    """Of the skills: 1 is easy, 3 is hard."""
    out: Path | None = None
    """A folder for every answer, the scores and a page. The same command goes on where it was stopped."""
    overwrite: bool = False
    """Begin anew in that folder."""
    compare: tuple[Path, Path] | None = None
    """Ask nothing: compare two such folders, question by question."""
    common: bool = False
    """Compare the questions that both have, where they have not the same."""
    params: Annotated[SamplingParams, tyro.conf.arg(name="")] = field(default_factory=SamplingParams)
    scoring: ScoringParams = field(default_factory=ScoringParams)
    """How choices are scored."""
    normalise: Normalisation = "none"
    """What a choice's scores are divided by."""
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)
    json: bool = False
    """Print one JSON object in place of the table: what results.json holds, or the comparison by task."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked, before a model is loaded."""
        if self.suite is not None and self.tasks:
            raise ValueError("name tasks or a suite, not both")
        if self.suite is not None and self.suite not in SUITES:
            raise ValueError(f"no suite is called {self.suite!r}; there are: {', '.join(SUITES)}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        for name in self.task_names:
            if name not in SKILL_KINDS:
                named_task(name)
        named_skills(self.skills)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, where no suite is asked for; commas part names, too."""
        if self.suite is not None:
            return ()
        return tuple(name for joined in self.tasks or ("skills",) for name in joined.split(","))


def command(arguments: list[str]) -> int:
    """Load, ask, count, print; or compare."""
    chosen = parse(Arguments, arguments, command="eval")
    if chosen.compare is not None:
        _compare(*chosen.compare, common=chosen.common, as_json=chosen.json)
        return 0
    tasks, left_out = _prepared(chosen)
    check_code(tasks, allowed=chosen.allow_code)
    settings = _settings(chosen, tasks, left_out, arguments)
    model = chosen.loading.load(chosen.model)
    if chosen.out is not None and chosen.overwrite:
        for name in (RESULTS, REPORT, ANSWERS, SETTINGS):
            (chosen.out / name).unlink(missing_ok=True)
    evaluated = _evaluated(model, chosen, tasks, settings)
    if chosen.json:
        print(json.dumps(evaluated.results(settings)))  # noqa: T201  # for programs: no wrapping, no colours
    else:
        scores.show(Console(), evaluated.summaries, left_out=left_out)
    return 0


def _compare(first: Path, second: Path, *, common: bool, as_json: bool) -> None:
    compared = compare_folders(first, second, common=common)
    if as_json:
        print(json.dumps({one.task: to_dict(one) for one in compared}))  # noqa: T201  # for programs
    else:
        scores.show_comparison(Console(), compared, names=[str(first), str(second)])


def _prepared(chosen: Arguments) -> tuple[list[Prepared], dict[str, str]]:
    """The tasks with their questions, and those of a suite that are left out, with the reason."""
    if chosen.suite is None:
        pairs = [pair for name in chosen.task_names for pair in _askings(name, chosen)]
        return [_prepare(task, asking, chosen) for task, asking in pairs], {}
    prepared, left_out = [], {}
    for asking in SUITES[chosen.suite].askings:
        task = TASKS[asking.task]
        if task.kind == "code" and not chosen.allow_code:
            left_out[asking.task] = "it runs programs that the model writes: --allow-code"
            continue
        try:
            prepared.append(_prepare(task, asking, chosen))
        except FileNotFoundError as error:
            left_out[asking.task] = str(error)
    if not prepared:
        raise ValueError(f"nothing of {chosen.suite} can be asked: {next(iter(left_out.values()))}")
    return prepared, left_out


def _askings(name: str, chosen: Arguments) -> list[tuple[Task, Asking]]:
    """The task called `name`, or all skills, with the settings of the flags."""
    asking = Asking(
        task=name,
        shots=chosen.shots,
        chat=chosen.chat,
        sampling=chosen.params,
        scoring=chosen.scoring,
        normalise=chosen.normalise,
    )
    if name not in SKILL_KINDS:
        return [(named_task(name), asking)]
    tasks = SKILL_KINDS[name](named_skills(chosen.skills), count=chosen.limit or COUNT, levels=chosen.levels)
    return [(task, replace(asking, task=task.name, chat=True)) for task in tasks]


def _prepare(task: Task, asking: Asking, chosen: Arguments) -> Prepared:
    return prepare(task, asking, data=chosen.data, limit=chosen.limit, read_hub=_read_hub)


def _read_hub(task: Task) -> Iterator[Mapping[str, Any]]:
    for part in task.hub:
        yield from hub_rows(part.path, part.name, part.split)


def _settings(
    chosen: Arguments, tasks: Sequence[Prepared], left_out: Mapping[str, str], arguments: Sequence[str]
) -> dict[str, Any]:
    """All that the answers depend on; under "run" what they do not."""
    return {
        "illada": __version__,
        "torch": torch.__version__,
        "model": chosen.model,
        "checkpoint": model_digest(find_model(chosen.model)),
        **({"overrides": to_dict(chosen.loading.overrides)} if chosen.loading.overrides.given else {}),
        "suite": chosen.suite,
        "limit": chosen.limit,
        "levels": list(chosen.levels),
        "tasks": [to_dict(one.asking) for one in tasks],
        "left_out": list(left_out),
        "questions": questions_digest(tasks),
        "run": {
            "command": shlex.join(["illada", "eval", *arguments]),
            "python": platform.python_version(),
            "device": chosen.loading.device,
        },
    }


def _evaluated(
    model: LanguageModel, chosen: Arguments, tasks: Sequence[Prepared], settings: dict[str, Any]
) -> Evaluated:
    room = Room(
        context=model.transformer.config.max_length, encode=model.tokenizer.encode, decode=model.tokenizer.decode
    )
    total = sum(len(one.questions) for one in tasks)
    with ProgressBar(Console(stderr=True), title="questions", total_steps=total) as bar:
        return evaluate(
            model,
            tasks,
            settings=settings,
            room=room,
            out=chosen.out,
            limits=Limits() if chosen.allow_code else None,
            on_progress=lambda done: bar.log(done, {}),
        )
