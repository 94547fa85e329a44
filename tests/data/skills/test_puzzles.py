"""Countdown against the list of all derivations; sudoku against a search that knows nothing of the generator."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.data.skills.problem import Draws, Problem
from illada.data.skills.puzzles import Countdown, Sudoku
from illada.data.skills.registry import is_test, items

LEVELS = pytest.mark.parametrize("level", [1, 2, 3])
SIGNS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b if a >= b else None,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if b and a % b == 0 else None,
}


def problems(skill, level, *, count=200, split="train"):
    return [item.problem for item in items(skill, split, count, levels=(level,))]


# --- countdown ----------------------------------------------------------------------------------------------------


def derivations(numbers: list[int], target: int) -> set[str]:
    """Every way from three numbers to the target in two steps without negative or broken numbers, by enumeration."""
    found = set()
    for one, other, last in permutations(numbers):
        for sign, operation in SIGNS.items():
            if (middle := operation(one, other)) is None:
                continue
            for second, operation_2 in SIGNS.items():
                for left, right in ((middle, last), (last, middle)):
                    if operation_2(left, right) == target:
                        found.add(f"{one}{sign}{other}={middle} {left}{second}{right}={target}")
    return found


def asked(numbers: list[int], target: int) -> Problem:
    return Problem(key="k", prompt=f"Make {target} from {' '.join(map(str, numbers))}", response="")


@LEVELS
def test_a_countdown_is_answered_by_one_of_all_derivations(level):
    for problem in problems("countdown", level):
        _, target, _, *numbers = problem.prompt.split(" ")
        ways = derivations([int(number) for number in numbers], int(target))
        assert problem.response in ways
        assert len(numbers) == 3
        assert max(map(int, numbers)) <= {1: 9, 2: 20, 3: 60}[level]
        assert all(Countdown().check(problem, way) for way in ways)


def test_the_same_numbers_in_any_order_are_one_key():
    by_numbers = {}
    for problem in problems("countdown", 1, count=4000):
        _, target, _, *numbers = problem.prompt.split(" ")
        by_numbers.setdefault((target, tuple(sorted(numbers))), {})[problem.prompt] = problem.key
    assert any(len(keys) > 1 for keys in by_numbers.values())
    assert all(len(set(keys.values())) == 1 for keys in by_numbers.values())


SMALL = st.integers(1, 6)
STEP = st.builds("{}{}{}={}".format, st.integers(0, 8), st.sampled_from("+-*/"), st.integers(0, 8), st.integers(0, 8))


@given(numbers=st.lists(SMALL, min_size=3, max_size=3), target=SMALL, first=STEP, second=STEP, data=st.data())
@settings(max_examples=500)
def test_a_reply_is_right_just_when_it_is_among_all_derivations(numbers, target, first, second, data):
    problem, ways = asked(numbers, target), sorted(derivations(numbers, target))
    reply = f"{first} {second}"
    assert Countdown().check(problem, reply) == (reply in ways)
    # the way to another target, or from other numbers
    elsewhere = data.draw(
        st.sampled_from(sorted(derivations(numbers, target + 1) | derivations([1, 2, target], target)))
    )
    assert Countdown().check(problem, elsewhere) == (elsewhere in ways)
    if ways:
        # one character off a right one: now and then that is right too
        way = data.draw(st.sampled_from(ways))
        place = data.draw(st.integers(0, len(way) - 1))
        near = way[:place] + data.draw(st.sampled_from("0123456789+-*/= ")) + way[place + 1 :]
        assert Countdown().check(problem, near) == (near in ways)


@pytest.mark.parametrize(
    "reply",
    ["44-15=29, 79-29=50", "44-15=29,79-29=50", "44-15=29\n79-29=50", "79+15=94 94-44=50", " 44-15=29   79-29=50 "],
)
def test_any_valid_way_counts_however_its_steps_are_parted(reply):
    assert Countdown().check(asked([15, 44, 79], 50), reply)


@pytest.mark.parametrize(
    ("numbers", "target", "reply"),
    [
        ([15, 44, 79], 50, "44-15=29"),
        ([15, 44, 79], 50, "44-15=29 79+29=108"),
        ([15, 44, 79], 108, "44-15=29 79-29=50"),
        ([15, 44, 50], 50, "44-15=29 50+29=79"),
        ([15, 44, 79], 50, "44-15=29 79-29=50 50+0=50"),
        ([15, 44, 79], 50, "44-15=30 80-30=50"),
        ([15, 44, 79], 50, "29+21=50 50+0=50"),
        ([15, 44, 79], 50, "44-15=29 79-29=50."),
        ([15, 44, 79], 50, "44-15=29 79-29"),
        ([15, 44, 79], 50, "50"),
        ([15, 44, 79], 50, ""),
        ([1, 8, 9], 17, "99*1=99 8+9=17"),  # the first step uses its own result
        ([1, 8, 9], 17, "17*1=17 8+9=17"),  # the first step uses what the second one makes
        ([3, 3, 4], 7, "3+4=7 3+4=7"),  # the 4 is used twice
        ([3, 4, 7], 7, "3+4=7 7*1=7"),
        ([2, 3, 5], 1, "5/2=2 3-2=1"),  # not exact
        ([2, 3, 5], 1, "5/0=3 3-2=1"),
        ([2, 3, 5], 4, "2-3=-1 5+-1=4"),
        ([1, 2, 3], 6, "1+2=3 3+3=6 ####"),
        ([1, 2, 3], 6, "__import__('os') 3+3=6"),
        ([1, 2, 3], 6, f"1+2={'9' * 5000} 3+3=6"),  # longer than Python reads as a number
        ([1, 2, 3], 6, "¹+2=3 3+3=6"),
    ],
)
def test_wrong_replies_are_refused(numbers, target, reply):
    assert not Countdown().check(asked(numbers, target), reply)


@given(st.text(alphabet="0123456789+-*/=,# \n"))
def test_no_reply_is_an_error(reply):
    assert Countdown().check(asked([2, 3, 5], 1), reply) == (
        " ".join(reply.replace(",", " ").split()) in derivations([2, 3, 5], 1)
        and not reply.strip().startswith(",")
        and not reply.strip().endswith(",")
    )


# --- sudoku -------------------------------------------------------------------------------------------------------


def completions(rows: list[str]) -> list[list[str]]:
    """All completions of a board by trying every digit in the first blank."""
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if cell != "0":
                continue
            box = [rows[a][b] for a in range(4) for b in range(4) if a // 2 == i // 2 and b // 2 == j // 2]
            seen = {*row, *(line[j] for line in rows), *box}
            tried = [[*rows[:i], row[:j] + digit + row[j + 1 :], *rows[i + 1 :]] for digit in set("1234") - seen]
            return [board for some in tried for board in completions(some)]
    return [rows]


@LEVELS
def test_a_sudoku_has_one_completion_and_that_is_the_response(level):
    blanks = Counter()
    for problem in problems("sudoku", level, count=60):
        head, *rows = problem.prompt.split("\n")
        assert head == "Solve:"
        assert [len(row) for row in rows] == [4] * 4
        assert completions(rows) == [problem.response.split("\n")]
        blanks[problem.prompt.count("0")] += 1
    assert set(blanks) == {1: {4, 5, 6}, 2: {7, 8}, 3: {9, 10}}[level]


def test_the_boards_of_the_tests_are_as_many_as_documented_and_no_others():
    kept = {problem.key for problem in problems("sudoku", 1, split="test", count=450)}
    trained = {problem.key for problem in problems("sudoku", 1, count=1700)}
    assert (len(kept), len(trained)) == (61, 288 - 61)
    assert not kept & trained
    assert "61 of them for tests" in " ".join(Sudoku.__doc__.split())


@pytest.mark.parametrize("place", range(16))
def test_one_wrong_digit_makes_a_board_wrong(place):
    problem = problems("sudoku", 2, count=1)[0]
    cells = list(problem.response)
    where = [i for i, cell in enumerate(cells) if cell != "\n"][place]
    cells[where] = str(int(cells[where]) % 4 + 1)
    assert Sudoku().check(problem, problem.response)
    assert not Sudoku().check(problem, "".join(cells))


def test_a_board_may_stand_on_one_line_but_not_without_its_rows():
    problem = problems("sudoku", 1, count=1)[0]
    assert Sudoku().check(problem, problem.response.replace("\n", " "))
    assert not Sudoku().check(problem, problem.response.replace("\n", ""))
    assert not Sudoku().check(problem, problem.prompt)


def test_the_side_of_a_board_is_that_of_all_its_puzzles():
    numbers = [0.5, 0.1, 0.3]
    for level in (1, 2, 3):
        easy = Sudoku().make(Draws(iter(numbers)), level)
        other = Sudoku().make(Draws(iter([0.5, 0.9, 0.8])), level)
        assert easy.prompt != other.prompt
        assert easy.key == other.key
        assert is_test(Sudoku(), easy) == is_test(Sudoku(), other)
