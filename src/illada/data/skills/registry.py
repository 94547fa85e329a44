"""The skills by name, and their problems by number: the same for everyone, train and test apart by construction."""

import hashlib
from collections import Counter
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


def items(
    skill: str, split: Split, count: int, *, seed: int = 0, levels: Sequence[int] = LEVELS, start: int = 0
) -> Iterator[Item]:
    """Problems number `start` to `start + count - 1` of one side of a skill, counted from 0.

    Problem number i is a function of (skill, split, seed, levels, i) alone. Its level is drawn evenly from `levels`;
    a problem whose key belongs to the other side is drawn again, with its level. Problems of small worlds repeat.

    Raises:
        ValueError: an unknown skill, split or level, or a negative number.
    """
    chosen = named_skill(skill)
    if split not in get_args(Split):
        raise ValueError(f"the split must be train or test, got {split!r}")
    if unknown := [level for level in levels if level not in LEVELS]:
        raise ValueError(f"there is no level {unknown[0]}: choose among {', '.join(map(str, LEVELS))}")
    if not levels:
        raise ValueError("there are 0 levels, but at least 1 is needed")
    if start < 0 or count < 0:
        raise ValueError(f"problems are counted from 0: there are no {count} from number {start} on")
    stream = Stream(seed, f"skills/{split}/{skill}")
    return _in_batches(chosen, split, stream, range(start, start + count), tuple(levels))


def item(skill: str, split: Split, index: int, *, seed: int = 0, levels: Sequence[int] = LEVELS) -> Item:
    """Problem number `index` of one side of a skill: what `items` gives there.

    Raises:
        ValueError: as `items`.
    """
    return next(items(skill, split, 1, seed=seed, levels=levels, start=index))


def named_skill(name: str) -> Skill:
    """The skill called `name`.

    Raises:
        ValueError: no such name; the message lists those there are.
    """
    if name not in SKILLS:
        raise ValueError(f"no skill is called {name!r}; there are: {', '.join(SKILLS)}")
    return SKILLS[name]


def named_skills(names: Sequence[str]) -> tuple[Skill, ...]:
    """The skills of these names, each of which may be several joined by commas.

    Raises:
        ValueError: none, an unknown one, or one that is named twice.
    """
    single = [name for joined in names for name in joined.split(",")]
    if not single:
        raise ValueError(f"name at least 1 skill; there are: {', '.join(SKILLS)}")
    if twice := [name for name, count in Counter(single).items() if count > 1]:
        raise ValueError(f"the skill {twice[0]!r} is named twice")
    return tuple(map(named_skill, single))


def is_test(skill: Skill, problem: Problem) -> bool:
    """Whether a problem is kept for tests: its key's hash, read as a fraction, is below the skill's test fraction."""
    digest = hashlib.sha256(f"{skill.name}\0{problem.key}".encode()).hexdigest()
    return int(digest[:8], 16) / 16**8 < skill.test_fraction


def _in_batches(skill: Skill, split: Split, stream: Stream, numbers: range, levels: tuple[int, ...]) -> Iterator[Item]:
    for start in range(0, len(numbers), _MADE_AT_ONCE):
        some = numbers[start : start + _MADE_AT_ONCE]
        yield from _made(skill, split, stream, torch.arange(some.start, some.stop), levels)


def _made(skill: Skill, split: Split, stream: Stream, index: torch.Tensor, levels: tuple[int, ...]) -> list[Item]:
    """The items of these numbers, those on the wrong side drawn again."""
    made: dict[int, Item] = {}
    attempt = 0
    while len(index):
        drawn = stream.uniform64(index, _DRAWS, epoch=attempt).tolist()
        for number, first in zip(index.tolist(), drawn, strict=True):
            draws = Draws(_endless(first, stream, number, attempt))
            level = draws.choice(levels)
            problem = skill.make(draws, level)
            if is_test(skill, problem) == (split == "test"):
                made[number] = Item(skill=skill.name, level=level, problem=problem)
        index = torch.tensor([number for number in index.tolist() if number not in made], dtype=torch.int64)
        attempt += 1
    return [made[number] for number in sorted(made)]


def _endless(first: list[float], stream: Stream, number: int, attempt: int) -> Iterator[float]:
    """The random numbers of one attempt: those at hand, then as many more as a skill asks for."""
    count = len(first)
    yield from first
    while True:
        # a longer draw begins with the shorter one
        yield from stream.uniform64(torch.tensor(number), 2 * count, epoch=attempt).tolist()[count:]
        count *= 2
