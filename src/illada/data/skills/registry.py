"""The skills by name, and their problems by number: the same for everyone, train and test apart by construction."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from illada.data.skills.numbers import Add, Compare, Next, Sort, Subtract
from illada.data.skills.problem import LEVELS, Draws, Problem, Skill
from illada.data.skills.puzzles import Countdown, Sudoku
from illada.data.skills.words import Count, Lookup, Repeat, Reverse
from illada.seeding import Stream

Split = Literal["train", "test"]

_MADE_AT_ONCE = 1024
_DRAWS = 96

SKILLS: dict[str, Skill] = {
    skill.name: skill
    for skill in (
        Repeat(),
        Reverse(),
        Sort(),
        Count(),
        Compare(),
        Lookup(),
        Next(),
        Add(),
        Subtract(),
        Countdown(),
        Sudoku(),
    )
}
"""Every skill by its name."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A problem and where it came from."""

    skill: str
    level: int
    problem: Problem


def items(skill: str, split: Split, count: int, *, seed: int = 0, levels: Sequence[int] = LEVELS) -> Iterator[Item]:
    """The first `count` problems of one side of a skill.

    Problem number i is a function of (skill, split, seed, levels, i) alone. Its level is drawn evenly from `levels`;
    a problem whose key belongs to the other side is drawn again. Problems of small worlds repeat.

    Raises:
        ValueError: an unknown skill, split or level.
    """
    chosen = named_skill(skill)
    if split not in get_args(Split):
        raise ValueError(f"the split must be train or test, got {split!r}")
    if unknown := [level for level in levels if level not in LEVELS]:
        raise ValueError(f"there is no level {unknown[0]}: choose among {', '.join(map(str, LEVELS))}")
    if not levels:
        raise ValueError("there are 0 levels, but at least 1 is needed")
    stream = Stream(seed, f"skills/{split}/{skill}")
    for start in range(0, count, _MADE_AT_ONCE):
        yield from _made(chosen, split, stream, torch.arange(start, min(start + _MADE_AT_ONCE, count)), levels)


def named_skill(name: str) -> Skill:
    """The skill called `name`.

    Raises:
        ValueError: no such name; the message lists those there are.
    """
    if name not in SKILLS:
        raise ValueError(f"no skill is called {name!r}; there are: {', '.join(SKILLS)}")
    return SKILLS[name]


def is_test(skill: Skill, problem: Problem) -> bool:
    """Whether a problem is kept for tests: its key's hash, read as a fraction, is below the skill's test fraction."""
    digest = hashlib.sha256(f"{skill.name}\0{problem.key}".encode()).hexdigest()
    return int(digest[:8], 16) / 16**8 < skill.test_fraction


def _made(skill: Skill, split: Split, stream: Stream, index: torch.Tensor, levels: Sequence[int]) -> list[Item]:
    """The items of these numbers, those on the wrong side drawn again."""
    made: dict[int, Item] = {}
    attempt = 0
    while len(index):
        drawn = stream.uniform64(index, _DRAWS, epoch=attempt).tolist()
        for number, numbers in zip(index.tolist(), drawn, strict=True):
            draws = Draws(iter(numbers))
            level = draws.choice(tuple(levels))
            problem = skill.make(draws, level)
            if is_test(skill, problem) == (split == "test"):
                made[number] = Item(skill=skill.name, level=level, problem=problem)
        index = torch.tensor([number for number in index.tolist() if number not in made], dtype=torch.int64)
        attempt += 1
    return [made[number] for number in sorted(made)]
