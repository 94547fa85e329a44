"""`illada skills --out FILE`: write problems with exact answers, to train on or to look at."""

import heapq
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from illada.cli.flags import parse
from illada.data.skills.problem import LEVELS
from illada.data.skills.registry import SKILLS, Item, Split, items, named_skills
from illada.durable import write_text
from illada.track.console import ProgressBar

_SHOWN_EVERY = 1000


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
    weights: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=FACTOR")] = ()
    """Multiply the count of single skills: add=2 sudoku=0.5."""
    overwrite: bool = False
    """Replace the file if there is one."""

    def __post_init__(self) -> None:
        """Refuse to write nothing, and weights of what is not written."""
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")
        _ = self.counts

    @property
    def counts(self) -> dict[str, int]:
        """Problems of each chosen skill.

        Raises:
            ValueError: a skill or a weight cannot be read, or leaves nothing of a skill.
        """
        counts = {skill.name: self.count for skill in named_skills(self.skills)}
        for weight in (one for joined in self.weights for one in joined.split(",")):
            name, _, factor = weight.partition("=")
            if name not in counts:
                raise ValueError(f"the weight {weight!r} is of no chosen skill; those are: {', '.join(counts)}")
            counts[name] = round(self.count * _factor(weight, factor))
            if counts[name] < 1:
                raise ValueError(
                    f"the weight {weight!r} leaves 0 of {self.count} problems: leave the skill out instead"
                )
        return counts


def command(arguments: list[str]) -> int:
    """Make the problems and write them, the skills taking turns."""
    chosen = parse(Arguments, arguments, command="skills")
    if chosen.out.exists() and not chosen.overwrite:
        raise FileExistsError(f"{chosen.out} is there already: add --overwrite, or choose another file")
    console = Console(stderr=True)
    total, skills = sum(chosen.counts.values()), len(chosen.counts)
    lines = []
    with ProgressBar(console, title="problems", total_steps=total) as bar:
        for number, item in enumerate(_turns(chosen), start=1):
            lines.append(_line(item))
            if number % _SHOWN_EVERY == 0:
                bar.log(number, {})
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out, "".join(lines))
    console.print(f"{total:,} problems of {skills} skills in {chosen.out}", markup=False, highlight=False)
    return 0


def _factor(weight: str, factor: str) -> float:
    try:
        value = float(factor)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"a weight has the form NAME=FACTOR with a factor above 0, got {weight!r}")
    return value


def _turns(chosen: Arguments) -> Iterator[Item]:
    """One problem of every skill, then the next of each; those of which there are more come more often."""
    streams = (_placed(chosen, name, order) for order, name in enumerate(chosen.counts))
    return (item for _, _, item in heapq.merge(*streams))


def _placed(chosen: Arguments, name: str, order: int) -> Iterator[tuple[float, int, Item]]:
    """The problems of one skill, each with its place in the file: evenly spread, equal places by the skills' order."""
    count = chosen.counts[name]
    problems = items(name, chosen.split, count, seed=chosen.seed, levels=chosen.levels)
    return (((2 * number + 1) / (2 * count), order, item) for number, item in enumerate(problems))


def _line(item: Item) -> str:
    row = {
        "prompt": item.problem.prompt,
        "response": item.problem.response,
        "skill": item.skill,
        "level": item.level,
    }
    return json.dumps(row) + "\n"
