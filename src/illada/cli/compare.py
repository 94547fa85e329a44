"""`illada compare STUDY`: arms that differ in named fields alone, over seeds, and what the data allow to say."""

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from illada.cli.flags import parse
from illada.compare.conduct import conduct
from illada.compare.folder import REPORT, write_study
from illada.compare.plan import changed
from illada.compare.run import Interrupted, Pool
from illada.compare.study import Study, shortened
from illada.compare.summary import summarize
from illada.distributed.processes import speaks_for_all
from illada.recipes.comparison import STUDIES
from illada.recipes.scales import SCALES


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare ways to train, everything else held fixed, and report what several seeds allow to say.

    The same command goes on where it was stopped, and finds finished runs again. Started by torchrun, all processes
    train each run together.
    """

    scale: str = "micro"
    """How large: micro, tiny or small."""
    seeds: int | None = None
    """How many, counted from 0; by default the study's own, three."""
    jobs: int = 1
    """Runs at a time."""
    threads: int = 1
    """Of each run; under torchrun, of each process."""
    device: str = "auto"
    """auto: the first GPU, else the CPU. It changes the last digits of the numbers, and nothing else."""
    share: float = 1.0
    """Of the steps and questions: 0.01 shows in a minute that a study runs, and nothing else."""
    data: Path | None = None
    """The folder that has `fairytaleqa/`, for the study `reading`; by default `data`."""
    pool: Path = Path("runs/compare")
    """Where runs lie, for all studies."""
    out: Path | None = None
    """The folder of the results; by default one of the study's name in the pool."""
    json: bool = False
    """Print the results as JSON in place of the sentences."""

    def __post_init__(self) -> None:
        """Refuse a scale that there is not."""
        if self.scale not in SCALES:
            raise ValueError(f"no scale is called {self.scale!r}; there are: {', '.join(SCALES)}")
        for name in ("jobs", "threads"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def command(arguments: list[str]) -> int:
    """Carry out the study that is named first."""
    name, flags = _named(arguments)
    chosen = parse(Arguments, flags, command=f"compare {name}")
    study, pool = _study(name, chosen), Pool(path=chosen.pool)
    console = Console(stderr=True, quiet=not speaks_for_all())

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    try:
        conducted = conduct(study, pool, jobs=chosen.jobs, threads=chosen.threads, device=chosen.device, report=tell)
    except Interrupted as reason:
        tell(f"{reason}: the same command goes on")
        return 0
    if not speaks_for_all():
        return 0
    results = summarize(conducted)
    folder = chosen.out or chosen.pool / name
    write_study(folder, results, conducted, pool, command=shlex.join(["illada", "compare", *arguments]))
    if chosen.json:
        print(json.dumps(results))  # noqa: T201  # for programs: no wrapping, no colours
        return 0
    plain = Console()
    for claim in results["claims"]:
        plain.print(claim["sentence"], markup=False, highlight=False)
    plain.print(str(folder / REPORT), markup=False, highlight=False, soft_wrap=True)
    return 0


def _named(arguments: list[str]) -> tuple[str, list[str]]:
    names = ", ".join(STUDIES)
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] not in STUDIES:
            raise ValueError(f"no study is called {arguments[0]!r}; there are: {names}")
        return arguments[0], arguments[1:]
    if not {"--help", "-h"} & set(arguments):
        raise ValueError(f"name a study: illada compare STUDY, one of {names}")
    Console().print(f"studies: {names}\n")
    return "planning", arguments


def _study(name: str, chosen: Arguments) -> Study:
    study = STUDIES[name](SCALES[chosen.scale])
    if chosen.seeds is not None:
        study = replace(study, seeds=tuple(range(chosen.seeds)))
    if chosen.data is not None:
        if study.plan.lessons is None or study.plan.lessons.lessons.tales is None:
            raise ValueError(f"the study {name} reads no data: leave --data out")
        study = replace(study, plan=changed(study.plan, {"lessons.lessons.tales": str(chosen.data)}))
    return shortened(study, chosen.share)
