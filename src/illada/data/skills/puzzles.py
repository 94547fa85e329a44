"""Skills that need a search: countdown with three numbers, and 4x4 sudoku."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from illada.data import sudoku
from illada.data.skills.problem import Draws, ExactSkill, Problem

_STEP = re.compile(r"([0-9]{1,6})([-+*/])([0-9]{1,6})=([0-9]{1,6})")
_MOST = 999
"""No step of a countdown exceeds this."""


@dataclass(frozen=True, kw_only=True)
class Countdown(ExactSkill):
    """Reach a target with three numbers, each used once; any way there is right."""

    name: str = "countdown"

    def make(self, draws: Draws, level: int) -> Problem:
        """`Make 50 from 15 44 79` -> `44-15=29 79-29=50`."""
        while True:
            numbers = [draws.between(1, {1: 9, 2: 20, 3: 60}[level]) for _ in range(3)]
            one, other, last = draws.sample(numbers, 3)
            first = _combined(one, other, draws)
            second = _combined(first[1], last, draws)
            if max(first[1], second[1]) <= _MOST and second[1] > 0:
                break
        target = second[1]
        return Problem(
            key=f"{sorted(numbers)}={target}",
            prompt=f"Make {target} from {' '.join(map(str, numbers))}",
            response=f"{first[0]} {second[0]}",
        )

    def check(self, problem: Problem, reply: str) -> bool:
        """Two correct steps that use up the three numbers and end with the target."""
        target, *numbers = map(int, re.findall(r"\d+", problem.prompt))
        left = Counter(numbers)
        steps = [_STEP.fullmatch(step) for step in re.split(r"[\s,]+", reply.strip())]
        if len(steps) != len(numbers) - 1:
            return False
        for step in steps:
            if step is None or not _is_correct(step):
                return False
            # what is not there to be used is not missed, but then more than one number is left in the end
            left = left - Counter((int(step[1]), int(step[3]))) + Counter([int(step[4])])
        return left == Counter([target])


@dataclass(frozen=True, kw_only=True)
class Sudoku(ExactSkill):
    """Fill a 4x4 board that has one completion.

    The key is the completed board: test boards are new as wholes, though not up to a change of digits or of rows.
    There are 288 boards, 61 of them for tests, and thousands of ways to blank each.
    """

    name: str = "sudoku"
    test_fraction: float = 0.2

    def make(self, draws: Draws, level: int) -> Problem:
        """Four lines of digits, 0 for a blank -> the same lines completed."""
        board = _boards()[draws.below(sudoku.SOLUTION_COUNT)]
        blanks = draws.between(*{1: (4, 6), 2: (7, 8), 3: (9, 10)}[level])
        puzzle = sudoku.puzzles(board[None], blanks, seed=draws.below(2**31))[0]
        solved = _lines(board)
        return Problem(key=solved, prompt=f"Solve:\n{_lines(puzzle)}", response=solved)


@cache
def _boards() -> Tensor:
    return sudoku.solutions()


def _lines(board: Tensor) -> str:
    digits = "".join(map(str, board.tolist()))
    return "\n".join(digits[start : start + sudoku.SIDE] for start in range(0, sudoku.CELLS, sudoku.SIDE))


def _combined(one: int, other: int, draws: Draws) -> tuple[str, int]:
    """One operation on two numbers, its smaller operand never first where order matters: the step and its result."""
    high, low = max(one, other), min(one, other)
    results = {"+": high + low, "-": high - low, "*": high * low}
    if low and high % low == 0:
        results["/"] = high // low
    sign = draws.choice([*results])
    return f"{high}{sign}{low}={results[sign]}", results[sign]


def _is_correct(step: re.Match[str]) -> bool:
    one, other, result = int(step[1]), int(step[3]), int(step[4])
    if step[2] == "/":
        return other != 0 and one == other * result
    return {"+": one + other, "-": one - other, "*": one * other}[step[2]] == result
