"""`illada skills --out FILE`: write problems with exact answers, to train on or to look at."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from illada.cli.flags import parse
from illada.data.skills.problem import LEVELS
from illada.data.skills.registry import SKILLS, Item, Split, items
from illada.durable import write_text


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write problems of the checkable skills as JSON lines with prompt, response, skill and level.

    Problems of the two splits never share a key. `illada eval --tasks skills` asks those of the split test.
    """

    out: Path
    """The file to write."""
    count: int = 1000
    """Problems of each skill."""
    split: Split = "train"
    seed: int = 0
    skills: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = tuple(SKILLS)
    """Which skills; all by default."""
    levels: tuple[int, ...] = LEVELS
    """1 is easy, 3 is hard."""
    overwrite: bool = False
    """Replace the file if there is one."""

    def __post_init__(self) -> None:
        """Refuse to write nothing."""
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")


def command(arguments: list[str]) -> int:
    """Make the problems and write them, the skills taking turns."""
    chosen = parse(Arguments, arguments, command="skills")
    if chosen.out.exists() and not chosen.overwrite:
        raise FileExistsError(f"{chosen.out} is there already: add --overwrite, or choose another file")
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out, "".join(map(_line, _turns(chosen))))
    Console(stderr=True).print(
        f"{chosen.count * len(chosen.skills):,} problems of {len(chosen.skills)} skills in {chosen.out}",
        markup=False,
        highlight=False,
    )
    return 0


def _turns(chosen: Arguments) -> Iterator[Item]:
    """One problem of every skill, then the next of each."""
    streams = [
        items(name, chosen.split, chosen.count, seed=chosen.seed, levels=chosen.levels) for name in chosen.skills
    ]
    for some in zip(*streams, strict=True):
        yield from some


def _line(item: Item) -> str:
    row = {
        "prompt": item.problem.prompt,
        "response": item.problem.response,
        "skill": item.skill,
        "level": item.level,
    }
    return json.dumps(row) + "\n"
