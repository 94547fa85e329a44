"""Skills about numbers: sort, compare, continue, add, subtract."""

from dataclasses import dataclass

from illada.data.skills.problem import FINAL, Draws, ExactSkill, Problem

_DIGITS = {1: (1, 2), 2: (2, 3), 3: (3, 4)}
"""How many digits the numbers of each level have."""


@dataclass(frozen=True, kw_only=True)
class Sort(ExactSkill):
    """Put numbers into ascending order."""

    name: str = "sort"

    def make(self, draws: Draws, level: int) -> Problem:
        """`Sort: 52 7 31` -> `7 31 52`. Every order of the same numbers is one key.

        Level 1 has 330 keys, 37 of them for tests, each in 6 or 24 orders.
        """
        count = draws.between(*{1: (3, 4), 2: (4, 5), 3: (5, 6)}[level])
        numbers = draws.sample(range(10) if level == 1 else range(100), count)
        ordered = " ".join(map(str, sorted(numbers)))
        return Problem(key=ordered, prompt=f"Sort: {' '.join(map(str, numbers))}", response=ordered)


@dataclass(frozen=True, kw_only=True)
class Compare(ExactSkill):
    """Say the larger of two numbers."""

    name: str = "compare"

    def make(self, draws: Draws, level: int) -> Problem:
        """`Which is larger, 482 or 479?` -> `482`. Half of the pairs are close; both orders are one key."""
        one = _number(draws, level)
        near = draws.below(2)
        other = max(0, one + draws.choice((-1, 1)) * draws.between(1, 9)) if near else _number(draws, level)
        other += one == other
        key = f"{min(one, other)}/{max(one, other)}"
        return Problem(key=key, prompt=f"Which is larger, {one} or {other}?", response=str(max(one, other)))


@dataclass(frozen=True, kw_only=True)
class Next(ExactSkill):
    """Continue a sequence of equal steps."""

    name: str = "next"

    def make(self, draws: Draws, level: int) -> Problem:
        """`Continue: 3 7 11 15` -> `19`. Level 1 has 459 sequences, 56 of them for tests."""
        first = draws.between(0, {1: 50, 2: 200, 3: 800}[level])
        step = draws.between(1, {1: 9, 2: 12, 3: 25}[level])
        shown = [first + step * number for number in range(4)]
        return Problem(
            key=f"{first}/{step}", prompt=f"Continue: {' '.join(map(str, shown))}", response=str(first + 4 * step)
        )


@dataclass(frozen=True, kw_only=True)
class Add(ExactSkill):
    """Add on paper: digit by digit from the right, with the carry."""

    name: str = "add"

    def make(self, draws: Draws, level: int) -> Problem:
        """`Add: 47 + 85` -> `7+5=12 4+8+1=13 #### 132`."""
        one, other = _number(draws, level), _number(draws, level)
        key = f"{min(one, other)}+{max(one, other)}"
        return Problem(key=key, prompt=f"Add: {one} + {other}", response=addition(one, other))


@dataclass(frozen=True, kw_only=True)
class Subtract(ExactSkill):
    """Subtract on paper: digit by digit from the right, borrowing."""

    name: str = "subtract"

    def make(self, draws: Draws, level: int) -> Problem:
        """`Subtract: 85 - 47` -> `15-7=8 7-4=3 #### 38`; never below zero."""
        one, other = sorted((_number(draws, level), _number(draws, level)), reverse=True)
        return Problem(key=f"{one}-{other}", prompt=f"Subtract: {one} - {other}", response=subtraction(one, other))


def addition(one: int, other: int) -> str:
    """The written steps of one + other, and the sum."""
    steps, carry = [], 0
    for top, bottom in _columns(one, other):
        total = top + bottom + carry
        steps.append(f"{top}+{bottom}{'+1' if carry else ''}={total}")
        carry = total // 10
    return f"{' '.join(steps)} {FINAL} {one + other}"


def subtraction(one: int, other: int) -> str:
    """The written steps of one - other (not below zero), and the difference.

    A digit that is too small gets the ten it borrows before it is written; the next has lent one.
    """
    steps, borrowed = [], 0
    for top, bottom in _columns(one, other):
        upper = top - borrowed
        borrowed = int(upper < bottom)
        upper += 10 * borrowed
        steps.append(f"{upper}-{bottom}={upper - bottom}")
    return f"{' '.join(steps)} {FINAL} {one - other}"


def _columns(one: int, other: int) -> list[tuple[int, int]]:
    """The digits above each other, from the right."""
    size = len(str(max(one, other)))
    return [(one // 10**place % 10, other // 10**place % 10) for place in range(size)]


def _number(draws: Draws, level: int) -> int:
    digits = draws.between(*_DIGITS[level])
    return draws.between(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)
