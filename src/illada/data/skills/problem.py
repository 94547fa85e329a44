"""What a skill is: random numbers in, a problem out, and a verdict on a reply."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

LEVELS = (1, 2, 3)
"""From easy to hard."""

FINAL = "####"
"""What stands in front of the answer where steps are written first, as in GSM8K (arXiv 2110.14168)."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One task and its answer."""

    key: str
    """What the problem is, whatever its wording: problems of one key are on one side of train and test."""
    prompt: str
    response: str
    """The reply to learn: written steps, if the skill has them, and the answer."""


class Draws:
    """The random numbers of one problem, used one after the other."""

    def __init__(self, numbers: Iterator[float]) -> None:
        self._numbers = numbers

    def below(self, count: int) -> int:
        """A number of 0 .. count - 1."""
        return int(next(self._numbers) * count)

    def between(self, low: int, high: int) -> int:
        """A number of low .. high, both included."""
        return low + self.below(high - low + 1)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items in random order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(count)]


@runtime_checkable
class Skill(Protocol):
    """One kind of task."""

    @property
    def name(self) -> str:
        """What it is called, in one word."""
        ...

    @property
    def test_fraction(self) -> float:
        """The share of the keys that only tests use."""
        ...

    def make(self, draws: Draws, level: int) -> Problem:
        """A problem of this level."""
        ...

    def check(self, problem: Problem, reply: str) -> bool:
        """Whether a reply answers it."""
        ...


@dataclass(frozen=True, kw_only=True)
class ExactSkill:
    """A skill with one right answer: what follows `FINAL` in the response, or else the whole of it."""

    name: str
    test_fraction: float = 0.1

    def check(self, problem: Problem, reply: str) -> bool:
        """Equal to the expected answer but for blanks."""
        steps = FINAL in problem.response
        return answer_of(reply, steps=steps) == answer_of(problem.response, steps=steps)


def answer_of(text: str, *, steps: bool) -> str | None:
    """The answer in a text, its blanks evened out: the whole of it, or what follows the last `FINAL`, if anything."""
    _, mark, answer = text.rpartition(FINAL)
    if not steps:
        answer = text
    elif not mark:
        return None
    return re.sub(r"\s+", " ", answer).strip()
