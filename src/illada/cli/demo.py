"""`illada demo`: the method at work, in five minutes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from illada.cli.flags import default_cache, parse
from illada.demo.run import DemoConfig, run_demo


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train a small model from nothing, watch it write and solve sudoku, and get a report that opens offline."""

    config: Annotated[DemoConfig, tyro.conf.arg(name="")] = field(default_factory=DemoConfig)
    out: Path | None = None
    """The run folder; by default runs/demo, or the first of runs/demo-2, -3 ... that is free."""
    cache: Path = field(default_factory=default_cache)
    """Where the prepared corpus is kept for the next run."""


def command(arguments: list[str]) -> int:
    """Run the demo."""
    chosen = parse(Arguments, arguments, command="demo")
    run_demo(chosen.config, chosen.out or _free_folder(), cache=chosen.cache, console=Console())
    return 0


def _free_folder() -> Path:
    folder, number = Path("runs/demo"), 1
    while folder.exists():
        number += 1
        folder = Path(f"runs/demo-{number}")
    return folder
